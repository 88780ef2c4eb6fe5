"""Folders of models with random weights, in the hub's layout: full-size geometry needs no download.

Two geometries exist: that of the models that the profile `sd15` names, and one that a processor
core goes through in a second. Tokenizers know single letters, which is what benchmarks ask with.
"""

import argparse
import json
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from transformers import (
    BertConfig,
    BertTokenizerFast,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    SamConfig,
    SamModel,
    SamVisionConfig,
    SwinConfig,
)

from models.processors import image_processor_class

Options = dict[str, Any]

_BERT_WORDS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
_BERT_WORDS |= {1012: ".", 1029: "?"}
_FIRST_LETTER = 1037


@dataclass(frozen=True)
class Geometry:
    """Sizes of all models; what is left empty is the library's default.

    Attributes:
        name: `full` or `small`.
        side: Height and width of a painted picture in pixels.
        steps: Denoising steps.
        pairs: Pairs of a batch of the painter.
        images: Images of a batch of the detector, and twice that of the segmenter.
        unet: Of the painter's network.
        vae: Of its autoencoder.
        text: Of its text encoder.
        checker: Of the tower of its safety checker.
        swin: Of the detector's image tower.
        bert: Of its text tower.
        detector: Of the rest of it.
        clip: Of the image tower of the student's CLIP.
        clip_text: Of its text tower.
        clip_width: Of what both towers are projected to.
        shortest_edge: What the detector enlarges an image to.
        sam: Of the segmenter's image tower.
        sam_prompts: Of what turns boxes into vectors.
        sam_decoder: Of what makes masks.
    """

    name: str
    side: int
    steps: int
    pairs: int
    images: int
    unet: Options
    vae: Options
    text: Options
    checker: Options
    shortest_edge: int
    sam: Options
    sam_prompts: Options = field(default_factory=dict)
    sam_decoder: Options = field(default_factory=dict)
    swin: Options = field(default_factory=dict)
    bert: Options = field(default_factory=dict)
    detector: Options = field(default_factory=dict)
    clip: Options = field(default_factory=dict)
    clip_text: Options = field(default_factory=dict)
    clip_width: int = 512


FULL = Geometry(
    name="full",
    side=512,
    steps=20,
    pairs=8,
    images=8,
    unet={"sample_size": 64, "cross_attention_dim": 768},
    vae={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
    text={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
    },
    checker={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    shortest_edge=800,
    sam={
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "mlp_dim": 5120,
        "global_attn_indexes": [7, 15, 23, 31],
        "initializer_range": 0.02,  # the default makes all but zeros
    },
    clip={"patch_size": 16},
)
"""Stable Diffusion 1.5, Grounding DINO tiny, SAM ViT-H and CLIP ViT-B/16."""

_TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
_TINY |= {"num_attention_heads": 2}

SMALL = Geometry(
    name="small",
    side=16,
    steps=3,
    pairs=2,
    images=2,
    unet={
        "sample_size": 8,
        "cross_attention_dim": 16,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    },
    vae={"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4},
    text={**_TINY, "vocab_size": 64, "max_position_embeddings": 77},
    checker={**_TINY, "image_size": 16, "patch_size": 8},
    shortest_edge=64,
    sam={
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 4,
        "window_size": 4,
        "num_pos_feats": 8,
        "mlp_dim": 32,
        "global_attn_indexes": [1],
        "initializer_range": 0.1,
    },
    sam_prompts={
        "hidden_size": 16,
        "image_size": 64,
        "patch_size": 4,
        "mask_input_channels": 4,
    },
    sam_decoder={
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_depth": 2,
        "iou_head_hidden_dim": 16,
    },
    swin={"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "window_size": 4},
    bert={**_TINY, "hidden_size": 32},
    detector={
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 16,
        "num_feature_levels": 3,
    },
    clip={**_TINY, "image_size": 32, "patch_size": 8},
    clip_text={**_TINY, "vocab_size": 64},
    clip_width=16,
)


def chosen_geometry(about: str | None) -> tuple[Geometry, str]:
    """What the command line asks for: full size, or hardly a weight; and the device.

    Args:
        about: What the benchmark does, for its help.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--small", action="store_true", help="networks with hardly a weight")
    arguments = parser.parse_args()
    return (SMALL if arguments.small else FULL), arguments.device


"""The same architectures with hardly a weight."""


def save_painter(folder: Path, geometry: Geometry, device: str) -> str:
    """Save a Stable Diffusion pipeline, in float16 if it is made on a GPU; give its path."""
    blocks = len(geometry.vae["block_out_channels"])
    kinds = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    repeated: Options = {name: kind * blocks for name, kind in kinds.items()}
    tower: Options = {**geometry.checker, "projection_dim": 768}
    of_checker = CLIPConfig(
        text_config={**_TINY, "vocab_size": 64}, vision_config=tower, projection_dim=768
    )
    networks: dict[str, Any] = {
        "unet": _made(lambda: UNet2DConditionModel(**geometry.unet), device),
        "vae": _made(lambda: AutoencoderKL(**geometry.vae, **repeated), device),
        "text_encoder": _made(
            lambda: CLIPTextModel(
                CLIPTextConfig(**geometry.text, bos_token_id=0, eos_token_id=1, pad_token_id=1)
            ),
            device,
        ),
        "safety_checker": _made(lambda: StableDiffusionSafetyChecker(of_checker), device),
    }
    for name in ("unet", "vae"):
        _stir(networks[name])
    side = geometry.checker["image_size"]
    make: Any = StableDiffusionPipeline
    make(
        **networks,
        tokenizer=_letters(folder),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        feature_extractor=image_processor_class("CLIPImageProcessor")(
            size={"shortest_edge": side}, crop_size=side
        ),
    ).to(torch.float32 if device == "cpu" else torch.float16).save_pretrained(folder)
    return str(folder)


def save_detector(folder: Path, geometry: Geometry, device: str) -> str:
    """Save a Grounding DINO in float32; give its path."""
    swin: Options = {"window_size": 7, "out_features": ["stage2", "stage3", "stage4"]}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(**swin | geometry.swin),
        text_config=BertConfig(**geometry.bert),
        **geometry.detector,
    )
    network = _made(lambda: GroundingDinoForObjectDetection(config), device)
    _stir(network, only="text_projection")
    network.save_pretrained(folder)
    words = [_BERT_WORDS.get(index, f"[unused{index}]") for index in range(_FIRST_LETTER)]
    (folder / "vocab.txt").write_text("\n".join([*words, *string.ascii_lowercase]))
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    short = geometry.shortest_edge
    image_processor_class("GroundingDinoImageProcessor")(
        size={"shortest_edge": short, "longest_edge": short * 5 // 3}
    ).save_pretrained(folder)
    return str(folder)


def save_segmenter(folder: Path, geometry: Geometry, device: str) -> str:
    """Save a SAM in float32; give its path."""
    tower = SamVisionConfig(**geometry.sam)
    config = SamConfig(
        vision_config=tower.to_dict(),
        prompt_encoder_config=geometry.sam_prompts,
        mask_decoder_config=geometry.sam_decoder,
        initializer_range=tower.initializer_range,
    )
    network = _made(lambda: SamModel(config), device)
    network.save_pretrained(folder)
    side = tower.image_size
    image_processor_class("SamImageProcessor")(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4},
        mask_pad_size={"height": side // 4, "width": side // 4},
    ).save_pretrained(folder)
    return str(folder)


def save_clip(folder: Path, geometry: Geometry, device: str) -> str:
    """Save the CLIP of a student in float32; give its path."""
    marks = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**marks, **geometry.clip_text},
        vision_config=geometry.clip,
        projection_dim=geometry.clip_width,
    )
    _letters(folder).save_pretrained(folder)
    _made(lambda: CLIPModel(config), device).save_pretrained(folder)
    return str(folder)


def _made(make: Callable[[], Any], device: str) -> Any:
    """A network with its random weights, drawn on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        return make().eval()


def _stir(network: torch.nn.Module, only: str = "") -> None:
    """Let the outputs differ: a fresh network paints an even grey and likes all words alike."""
    for name, parameter in network.named_parameters():
        if only in name and parameter.ndim > 1:
            parameter.data.mul_(1.5)


def _letters(folder: Path) -> CLIPTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    marks = ["<|startoftext|>", "<|endoftext|>"]
    letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    words = {word: index for index, word in enumerate(marks + letters)}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    make: Any = CLIPTokenizer
    return make(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
