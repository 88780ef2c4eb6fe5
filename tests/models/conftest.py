"""Small checkpoints with random weights, saved in the layout of the hub."""

import json
import string

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertTokenizerFast,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SwinConfig,
)

from tiny_pipelines import build_pipeline_of
from tiny_sam3 import save_sam3


@pytest.fixture(scope="session")
def build_pipeline():
    """Saves a Stable Diffusion checkpoint in a folder and returns its path."""
    return _build_pipeline


@pytest.fixture(scope="session")
def build_family():
    """Saves a pipeline of the class that is named in a folder and returns its path."""
    return build_pipeline_of


@pytest.fixture(scope="session")
def saved_family(tmp_path_factory):
    """A function from a class to the folder of such a pipeline, which nobody may change."""
    saved = {}

    def folder(name):
        if name not in saved:
            saved[name] = build_pipeline_of(name, tmp_path_factory.mktemp(name))
        return saved[name]

    return folder


@pytest.fixture(scope="session")
def lose_tensor():
    """Takes out of the weights in a folder the tensors whose names have a part."""

    def lose(folder, part):
        (file,) = folder.glob("*.safetensors")
        state = {name: each for name, each in load_file(file).items() if part not in name}
        save_file(state, file, {"format": "pt"})

    return lose


@pytest.fixture(scope="session")
def build_detector():
    """Saves a Grounding DINO checkpoint in a folder and returns its path."""
    return _build_detector


@pytest.fixture(scope="session")
def build_sam():
    """Saves a SAM checkpoint in a folder and returns its path."""
    return _build_sam


@pytest.fixture(scope="session")
def build_sam3():
    """Saves a SAM 3 checkpoint in a folder and returns its path."""
    return save_sam3


def _build_tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in string.ascii_lowercase:
        words[letter] = len(words)
        words[letter + "</w>"] = len(words)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=20
    )


def _build_safety_checker(threshold):
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    side |= {"num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**side, "vocab_size": 60, "projection_dim": 16},
        vision_config={**side, "image_size": 16, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(threshold)
    return checker


def _build_pipeline(folder, safety_threshold=None):
    """Save a Stable Diffusion checkpoint in the hub's layout."""
    torch.manual_seed(0)
    tokenizer = _build_tokenizer(folder)
    text = CLIPTextConfig(
        vocab_size=54,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    encoder = CLIPTextModel(text)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=16,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
    )
    for network in (unet, vae):  # fresh networks paint an even grey
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(2.0)
    checker = None if safety_threshold is None else _build_safety_checker(safety_threshold)
    extractor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1, timestep_spacing="trailing"),
        safety_checker=checker,
        feature_extractor=None if checker is None else extractor,
        requires_safety_checker=checker is not None,
    ).save_pretrained(folder)
    return str(folder)


SPECIAL = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}
WORDS = ["bus", "cat", "school", "fish", "mush", "##room", "tree", "a", "b", "c", "-"]


def _build_processor(folder):
    folder.mkdir(parents=True, exist_ok=True)
    words = SPECIAL | {word: 200 + index for index, word in enumerate(WORDS)}
    ids = {index: word for word, index in words.items()}
    vocabulary = [ids.get(index, f"[unused{index}]") for index in range(1030)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return GroundingDinoProcessor(images, tokenizer)


def _build_detector(folder):
    """Save a Grounding DINO checkpoint in the hub's layout: 16 queries, 24 text tokens."""
    torch.manual_seed(0)
    _build_processor(folder).save_pretrained(folder)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[2, 2, 2, 2],
            window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=1030,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=16,
        num_feature_levels=3,
        max_text_len=24,
        encoder_n_points=2,
        decoder_n_points=2,
    )
    model = GroundingDinoForObjectDetection(config)
    # A fresh box head gives every query the size of its proposal: let boxes and scores differ.
    for name, parameter in model.named_parameters():
        if "bbox_embed" in name:
            parameter.data = torch.randn_like(parameter) * 0.5
        if "text_projection" in name and parameter.ndim > 1:
            parameter.data = parameter.data * 4
    model.save_pretrained(folder)
    return str(folder)


def _build_sam(folder):
    """Save a SAM checkpoint in the hub's layout: 64 px input, 64 px masks."""
    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=16,
        output_channels=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=4,
        window_size=4,
        global_attn_indexes=[1],
        num_pos_feats=8,
        mlp_dim=32,
        initializer_range=0.1,
    )
    prompt = SamPromptEncoderConfig(
        hidden_size=16, image_size=64, patch_size=4, mask_input_channels=4
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=16,
        mlp_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        iou_head_depth=2,
        iou_head_hidden_dim=16,
    )
    model = SamModel(
        SamConfig(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
            initializer_range=0.3,
        )
    )
    model.save_pretrained(folder)
    SamProcessor(
        SamImageProcessor(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 64},
            mask_pad_size={"height": 64, "width": 64},
        )
    ).save_pretrained(folder)
    return str(folder)
