"""The miniature SAM: the architecture of `transformers` in a tiny geometry."""

import torch
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from models.miniature.world import CANVAS
from models.processors import image_processor_class

_PATCH = 4
_WIDTH = 128


def processor() -> SamProcessor:
    """Image and prompt processor for scenes of the world."""
    side = {"height": CANVAS, "width": CANVAS}
    images = image_processor_class("SamImageProcessor")(
        size={"longest_edge": CANVAS},
        pad_size=side,
        mask_size={"longest_edge": CANVAS},
        mask_pad_size=side,
    )
    return SamProcessor(images)


def untrained_network() -> SamModel:
    """A SAM with random weights: 1.1 million parameters, 16 x 16 tokens, masks of 64 x 64."""
    vision = SamVisionConfig(
        hidden_size=96,
        output_channels=_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CANVAS,
        patch_size=_PATCH,
        initializer_range=0.02,
        mlp_ratio=2.0,
        window_size=8,
        global_attn_indexes=[1, 3],
        num_pos_feats=_WIDTH // 2,
    )
    prompts = SamPromptEncoderConfig(hidden_size=_WIDTH, image_size=CANVAS, patch_size=_PATCH)
    decoder = SamMaskDecoderConfig(
        hidden_size=_WIDTH, mlp_dim=2 * _WIDTH, num_attention_heads=4, iou_head_hidden_dim=64
    )
    network = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    )
    with torch.no_grad():
        # transformers draws these frequencies for weights that are loaded anyway; with its
        # deviation of half the width, neighbouring places would have unrelated codes
        shared = network.shared_image_embedding.positional_embedding
        shared.normal_(std=1.0)
        network.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    return network
