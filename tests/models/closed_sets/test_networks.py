from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import SwinConfig, SwinForImageClassification, SwinModel

from models.closed_sets.configs import DeepLabConfig, Mask2FormerConfig
from models.closed_sets.networks import build_network, network_document
from models.closed_sets.normalisation import normalise
from models.closed_sets.openmmlab import MODELS
from storage.errors import InputError
from training.closed_sets.config import load_recipe

DEEPLAB = DeepLabConfig(
    depth=18, base_channels=4, channels=8, dilations=(1, 2), auxiliary_channels=4
)
MASK2FORMER = Mask2FormerConfig(
    backbone={
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    decoder={
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_attention_heads": 2,
        "dim_feedforward": 16,
        "num_queries": 5,
        "train_num_points": 64,
    },
)


SWIN = MASK2FORMER.model_copy(
    update={
        "backbone": {
            "model_type": "swin",
            "image_size": 32,
            "window_size": 2,
            "embed_dim": 8,
            "depths": [1, 1, 2, 1],
            "num_heads": [1, 2, 2, 2],
            "drop_path_rate": 0.3,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        }
    }
)


@pytest.mark.parametrize("config", [DEEPLAB, MASK2FORMER, SWIN])
def test_scores_are_a_map_of_every_label_at_the_size_asked_for(config):
    torch.manual_seed(0)
    network = build_network(config, 4).eval()
    pixels = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    with torch.no_grad():
        scores = network.scores(pixels, (23, 31))
    assert scores.shape == (4, 23, 31)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_deeplab_scores_as_mmsegmentation_does():
    torch.manual_seed(0)
    network = build_network(DEEPLAB, 4).eval()
    pixels = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    # mmsegmentation is given the channels in OpenCV's order.
    theirs = network.test_step({"inputs": [pixels[0].flip(0)], "data_samples": _samples((23, 31))})
    with torch.no_grad():
        ours = network.scores(pixels, (23, 31))
    assert torch.equal(ours.argmax(0), theirs[0].pred_sem_seg.data[0])


def _samples(size):
    from mmseg.structures import SegDataSample

    shape = {"ori_shape": size, "img_shape": (40, 56), "pad_shape": (40, 56)}
    return [SegDataSample(metainfo=shape)]


def test_mask2former_weighs_every_mask_by_its_class():
    torch.manual_seed(0)
    network = build_network(MASK2FORMER, 4).eval()
    pixels = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        ours = network.scores(pixels, (64, 96))
        output = network.network(pixel_values=normalise(pixels))
    masks = F.interpolate(output.masks_queries_logits, (64, 96), mode="bilinear")[0].sigmoid()
    classes = output.class_queries_logits[0].softmax(-1)
    by_hand = sum(classes[query, :4, None, None] * masks[query] for query in range(5))
    assert torch.allclose(ours, by_hand.clamp(max=1), atol=1e-5)


@pytest.mark.parametrize("config", [MASK2FORMER, SWIN])
def test_mask2former_learns_from_a_batch_with_an_image_that_is_ignored_as_a_whole(config):
    torch.manual_seed(0)
    network = build_network(config, 4).train()
    maps = torch.full((2, 1, 32, 32), 255, dtype=torch.uint8)
    maps[0, :, :16] = 3
    samples = [SimpleNamespace(gt_sem_seg=SimpleNamespace(data=each)) for each in maps]
    loss = network(torch.randn(2, 3, 32, 32), samples, mode="loss")["loss"]
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_a_resnet_101_has_the_channels_of_its_bottlenecks():
    document = network_document(DeepLabConfig(depth=101), 21)
    assert document["decode_head"]["in_channels"] == 2048
    assert document["auxiliary_head"]["in_channels"] == 1024
    assert document["decode_head"]["num_classes"] == 21
    assert document["decode_head"]["dilations"] == (1, 12, 24, 36)


def test_a_trained_backbone_is_taken_over_and_one_of_another_geometry_refused(tmp_path):
    torch.manual_seed(0)
    first = build_network(MASK2FORMER, 4)
    first.network.model.pixel_level_module.encoder.save_pretrained(tmp_path)
    started = MASK2FORMER.model_copy(update={"backbone_weights": str(tmp_path)})
    second = MODELS.build(network_document(started, 7))
    encoders = [n.network.model.pixel_level_module.encoder.state_dict() for n in (first, second)]
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[0])
    other = {**MASK2FORMER.backbone, "depths": [1, 1, 1, 2]}
    with pytest.raises(InputError, match="another geometry"):
        MODELS.build(network_document(started.model_copy(update={"backbone": other}), 7))


@pytest.mark.parametrize("kind", [SwinModel, SwinForImageClassification])
def test_a_swin_is_taken_over_from_a_classifier_too(tmp_path, kind):
    torch.manual_seed(0)
    own = {k: v for k, v in SWIN.backbone.items() if k not in {"model_type", "out_features"}}
    trained = kind(SwinConfig(**own))
    trained.save_pretrained(tmp_path)
    wanted = {n.removeprefix("swin."): t for n, t in trained.state_dict().items()}
    started = SWIN.model_copy(update={"backbone_weights": str(tmp_path)})
    network = MODELS.build(network_document(started, 7)).network
    encoder = network.model.pixel_level_module.encoder.state_dict()
    found = {n.removeprefix("swin."): t for n, t in encoder.items()}
    # The norms after the stages belong to the segmenter, the last norm and the head to the others.
    fresh = {n for n in found if n not in wanted}
    assert all(n.startswith("hidden_states_norms.") for n in fresh)
    assert len(fresh) == 8
    for name in found.keys() - fresh:
        assert torch.equal(found[name], wanted[name]), name
    other = {**SWIN.backbone, "embed_dim": 16}
    with pytest.raises(InputError, match=r"another (geometry|shape)"):
        MODELS.build(network_document(started.model_copy(update={"backbone": other}), 7))


def test_the_swin_b_recipe_has_the_published_geometry():
    config = Mask2FormerConfig.model_validate(load_recipe("mask2former_swin_b")["network"])
    with torch.device("meta"):
        network = build_network(config, 20)
    encoder = dict(network.network.model.pixel_level_module.encoder.named_parameters())
    tables = [t.shape for n, t in encoder.items() if n.endswith("relative_position_bias_table")]
    # 2 + 2 + 18 + 2 blocks; windows of 12 have 23 x 23 relative places.
    assert tables == [(529, heads) for heads, count in STAGES for _ in range(count)]
    widths = [t.shape[0] for n, t in encoder.items() if "hidden_states_norms" in n and "bias" in n]
    assert widths == [128, 256, 512, 1024]
    # Swin (arXiv 2103.14030) has 88 million with its head of 1,000 classes.
    assert 86e6 < sum(t.numel() for t in encoder.values()) < 88e6


STAGES = ((4, 2), (8, 2), (16, 18), (32, 2))


def test_a_trained_mask2former_is_taken_over_but_for_its_classes(tmp_path):
    torch.manual_seed(0)
    first = build_network(MASK2FORMER, 4)
    first.network.save_pretrained(tmp_path)
    started = MASK2FORMER.model_copy(update={"weights": str(tmp_path)})
    second = MODELS.build(network_document(started, 7)).network
    for name, tensor in first.network.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert second.class_predictor.out_features == 8
    wider = {**MASK2FORMER.decoder, "num_queries": 6}
    with pytest.raises(InputError, match="another geometry"):
        MODELS.build(network_document(started.model_copy(update={"decoder": wider}), 7))


def test_missing_weights_are_refused():
    missing = MASK2FORMER.model_copy(update={"backbone_weights": "no/where"})
    with pytest.raises(InputError, match="no/where"):
        MODELS.build(network_document(missing, 4))
