from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from models.closed_sets.configs import DeepLabConfig, Mask2FormerConfig
from models.closed_sets.networks import build_network, network_document
from models.closed_sets.normalisation import normalise
from models.closed_sets.openmmlab import MODELS
from storage.errors import InputError

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


@pytest.mark.parametrize("config", [DEEPLAB, MASK2FORMER])
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


def test_mask2former_learns_from_a_batch_with_an_image_that_is_ignored_as_a_whole():
    torch.manual_seed(0)
    network = build_network(MASK2FORMER, 4).train()
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
