"""The miniature CLIP: the architecture of `transformers` in a tiny geometry, and its processor."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from models.miniature import captions
from models.miniature.tokens import END, START, write_tokenizer
from models.miniature.world import BACKGROUNDS, CANVAS, CLASSES
from models.processors import image_processor_class

WIDTH = 64
"""Length of an embedding."""

_MAX_LENGTH = 32

_WORDS = ("this", "is", "the", "scene", "there", "in", "background", "nothing", "an", "of", "photo",
          "no", "picture", "drawing", "object", "with", "and")  # fmt: skip


class ClipWithHeads(nn.Module):
    """A CLIP and the two heads that only its training needs."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.image_head = nn.Linear(WIDTH, len(CLASSES))
        self.patch_head = nn.Linear(WIDTH, len(CLASSES) + 1)

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Project pictures (batch, 3, height, width), normalised for CLIP, without scaling.

        Returns:
            Embeddings of the pictures, (batch, 64), and of their patches, (batch, patches, 64).
        """
        vision = self.clip.vision_model
        states = vision(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        # the class token, then the patches: (batch, 1 + patches, 64)
        tokens = self.clip.visual_projection(vision.post_layernorm(states))
        return tokens[:, 0], tokens[:, 1:]


def untrained_network(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP with random weights: ViT of 4 layers with patches of 8, text of 2 layers."""
    vocabulary = tokenizer.get_vocab()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_MAX_LENGTH,
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
    )
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CANVAS,
        patch_size=8,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def write_processor(folder: Path) -> CLIPProcessor:
    """Write and load the text and image processor; each word of the world is one token."""
    words = {*captions.caption_words(), *_WORDS, *BACKGROUNDS}
    write_tokenizer(folder, words, _MAX_LENGTH)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    side = {"height": CANVAS, "width": CANVAS}
    images = image_processor_class("CLIPImageProcessor")(
        size={"shortest_edge": CANVAS}, crop_size=side
    )
    loaded = CLIPProcessor(images, tokenizer)
    loaded.save_pretrained(folder)
    return loaded


def text_embeddings(clip: CLIPModel, ids: Mapping[str, Tensor]) -> Tensor:
    """Project tokenised texts, long (texts, tokens): float (texts, 64), not normalised."""
    pooled = clip.text_model(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]
    ).pooler_output
    return clip.text_projection(pooled)
