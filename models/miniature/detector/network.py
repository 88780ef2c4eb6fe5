"""The miniature Grounding DINO: the architecture of `transformers` in a tiny geometry."""

from typing import Any, cast

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SwinConfig,
)

from models.miniature.world import BACKGROUNDS, CANVAS, CLASSES, COLOURS, SIZES
from models.processors import image_processor_class

SPECIAL = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}
"""Ids of the tokens that stand for no word, as in Grounding DINO."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""What unknown words are spelled with."""

MAX_TEXT = 48
"""Longest text in tokens."""

STRIDES = (8, 16)
"""Pixels to a side of the encoder's image tokens, finest level first."""

_WORDS_FROM = 200


def token_ids() -> dict[str, int]:
    """Words by id: special tokens where Grounding DINO has them, words, letters for the rest."""
    words = [*CLASSES, *COLOURS, *SIZES, *BACKGROUNDS, *LETTERS]
    words += [f"##{letter}" for letter in LETTERS]
    known = SPECIAL | {word: _WORDS_FROM + number for number, word in enumerate(words)}
    taken = set(known.values())
    unused = (number for number in range(max(taken)) if number not in taken)
    return known | {f"[unused{number}]": number for number in unused}


def processor() -> GroundingDinoProcessor:
    """Text and image processor for scenes of the world."""
    edges = {"shortest_edge": CANVAS, "longest_edge": CANVAS}
    tokenizer = BertTokenizer(vocab=token_ids(), model_max_length=MAX_TEXT)
    return GroundingDinoProcessor(
        image_processor_class("GroundingDinoImageProcessor")(size=edges), tokenizer
    )


def untrained_network() -> GroundingDinoForObjectDetection:
    """A Grounding DINO with random weights: 1.7 million parameters, strides 8 and 16."""
    vision = SwinConfig(
        image_size=CANVAS,
        patch_size=4,
        embed_dim=48,
        depths=[1, 2, 2],
        num_heads=[2, 4, 8],
        window_size=4,
        drop_path_rate=0.0,
        out_indices=[2, 3],  # pyright: ignore[reportCallIssue] - a property of the mixin
    )
    text = BertConfig(
        vocab_size=max(token_ids().values()) + 1,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config = GroundingDinoConfig(
        backbone_config=vision,
        text_config=text,
        num_queries=16,
        d_model=64,
        encoder_layers=2,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_layers=2,
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        num_feature_levels=2,
        max_text_len=MAX_TEXT,
        dropout=0.0,
        fusion_droppath=0.0,
    )
    network = GroundingDinoForObjectDetection(config)
    layers = cast("list[Any]", network.model.encoder.layers)
    with torch.no_grad():
        for layer in layers:
            # the published start, 1e-4, keeps the text out of the picture for a thousand steps
            layer.fusion_layer.vision_param.fill_(0.1)
            layer.fusion_layer.text_param.fill_(0.1)
        # class logits are unscaled products of normalised vectors: begin near 0, not near 8
        layers[-1].text_enhancer_layer.layer_norm_after.weight.fill_(0.2)
    return network
