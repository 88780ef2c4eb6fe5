"""A small SAM 3 with random weights; its tokenizer knows single letters."""

import json
import string

import torch
import transformers

from models.processors import image_processor_class


def save_sam3(folder, *, light=False):
    """Save a SAM 3 checkpoint in the hub's layout: 56 px input, 12 queries, masks of 16 px."""
    torch.manual_seed(0)
    _save_letters(folder)
    side = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    part = {**side, "num_layers": 1}
    tower = {"model_type": "sam3_vit_model", "image_size": 56, "pretrain_image_size": 28}
    tower |= {"num_hidden_layers": 2, "window_size": 2, "global_attn_indexes": [1]}
    text = {"vocab_size": 54, "projection_dim": 16, "num_hidden_layers": 1}
    text |= {"max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1}
    prefix = "Sam3LiteText" if light else "Sam3"
    config = getattr(transformers, f"{prefix}Config")(
        vision_config={"backbone_config": {**side, **tower}, "fpn_hidden_size": 32},
        text_config={**side, **text},
        geometry_encoder_config=part,
        detr_encoder_config=part,
        detr_decoder_config={**part, "num_layers": 2, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
        initializer_range=0.3,
    )
    model = getattr(transformers, f"{prefix}Model")(config)
    # A fresh box head leaves every box in the middle, and a fresh word says little.
    for name, parameter in model.named_parameters():
        if "box_head" in name or "reference_points" in name:
            parameter.data = torch.randn_like(parameter) * 0.3
        if name.startswith(("text_projection", "text_encoder")) and parameter.ndim > 1:
            parameter.data = parameter.data * 3
    model.save_pretrained(folder)
    image_processor_class("ViTImageProcessor")(
        size={"height": 56, "width": 56}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    return str(folder)


def _save_letters(folder):
    folder.mkdir(parents=True, exist_ok=True)
    marks = ["<|startoftext|>", "<|endoftext|>"]
    letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    words = {word: number for number, word in enumerate(marks + letters)}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=32
    ).save_pretrained(folder)
