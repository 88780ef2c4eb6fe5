"""The networks of the miniature painter, and the pipeline that is made of them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.miniature import captions
from models.miniature.tokens import write_tokenizer
from models.miniature.vae.network import LATENTS
from models.miniature.world import CLASSES

TOKENS = 24
"""Longest caption in tokens, start and end included."""

_COARSE = ("DownBlock2D", "UpBlock2D")


class Text(nn.Module):
    """The text encoder with its tokenizer."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            projection_dim=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=len(tokenizer) - 2,
            eos_token_id=len(tokenizer) - 1,
            pad_token_id=len(tokenizer) - 1,
        )
        self.encoder = CLIPTextModel(config)

    def ids(self, texts: list[str]) -> Tensor:
        """Token ids, padded: long (texts, TOKENS)."""
        kinds = {"padding": "max_length", "truncation": True, "max_length": TOKENS}
        return self.tokenizer(texts, return_tensors="pt", **kinds).input_ids.to(self.encoder.device)

    def words(self) -> Tensor:
        """Token id of each class of the world, long (classes)."""
        return torch.tensor(self.tokenizer.convert_tokens_to_ids([f"{c}</w>" for c in CLASSES]))

    def forward(self, texts: list[str]) -> Tensor:
        """The states of all tokens: float (texts, TOKENS, 64)."""
        return self.encoder(self.ids(texts)).last_hidden_state


def denoiser(*, fine: bool) -> UNet2DConditionModel:
    """A U-Net on 16 x 16 latents with cross-attention at 8 x 8 and 4 x 4.

    Args:
        fine: Cross-attention at 16 x 16 too.
    """
    down, up = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D") if fine else _COARSE
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENTS,
        out_channels=LATENTS,
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        down_block_types=(down, "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", up),
        attention_head_dim=4,
        cross_attention_dim=64,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def refined(weights: Mapping[str, Tensor]) -> UNet2DConditionModel:
    """A denoiser with attention at 16 x 16 that computes what one without it does.

    Args:
        weights: Of a denoiser with or without that attention; what is missing is random, with
            projections of 0 at its end.
    """
    unet = denoiser(fine=True)
    fresh = unet.load_state_dict(dict(weights), strict=False).missing_keys
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name in fresh and ".proj_out." in name:
                parameter.zero_()
    return unet


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, predicting velocities, sampled with trailing steps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def export(out: Path, text: Text, unet: UNet2DConditionModel, autoencoder: AutoencoderKL) -> None:
    """Write the pipeline in half precision, which costs nothing that can be seen.

    Args:
        out: Its folder; the autoencoder is there already, in `vae`.
        text: The text encoder with its tokenizer.
        unet: The denoiser.
        autoencoder: The autoencoder.
    """
    networks: dict[str, Any] = {
        "vae": autoencoder,
        "text_encoder": text.encoder,
        "tokenizer": text.tokenizer,
        "unet": unet,
        "scheduler": scheduler(),
    }
    networks |= dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
    pipeline = StableDiffusionPipeline(**networks, requires_safety_checker=False)
    with TemporaryDirectory() as folder:
        saved = Path(folder) / "painter"  # a folder that others than its owner may read
        pipeline.to("cpu", torch.float16).save_pretrained(saved)
        # the autoencoder is there, and others may be reading it; the tokenizer comes from its words
        others = shutil.ignore_patterns("vae", "tokenizer")
        shutil.copytree(saved, out, ignore=others, dirs_exist_ok=True)
    write_words(out / "tokenizer")


def write_words(folder: Path) -> None:
    """Write the painter's tokenizer: each word of a caption is one token."""
    write_tokenizer(folder, captions.caption_words(), TOKENS)
