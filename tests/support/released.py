"""Random weights under the names and in the shapes of a released ZegCLIP checkpoint."""

import torch


def released_tensors(
    *, width: int, embed: int, depth: int, tokens: int, patch: int, side: int
) -> dict[str, torch.Tensor]:
    """Random weights under the names of a released checkpoint."""
    shapes = {
        "backbone.class_embedding": (width,),
        "backbone.positional_embedding": (1 + side**2, width),
        "backbone.proj": (width, embed),
        "backbone.prompt_embeddings": (1, tokens, width),
        "backbone.deep_prompt_embeddings": (depth - 1, tokens, width),
        "backbone.conv1.weight": (width, 3, patch, patch),
        "backbone.prompt_proj.weight": (width, width),
        "backbone.prompt_proj.bias": (width,),
        "decode_head.loss_decode.criterion.empty_weight": (6,),
        "decode_head.q_proj.weight": (embed, 2 * embed),
        "decode_head.q_proj.bias": (embed,),
    }
    for norm in ("ln_pre", "ln_post", "prompt_norm"):
        shapes |= {f"backbone.{norm}.{leaf}": (width,) for leaf in ("weight", "bias")}
    for i in range(depth):
        block = f"backbone.transformer.resblocks.{i}."
        linear = {
            "attn.in_proj_": (3 * width, width),
            "attn.out_proj.": (width, width),
            "mlp.c_fc.": (2 * width, width),
            "mlp.c_proj.": (width, 2 * width),
        }
        for name, shape in linear.items():
            shapes |= {f"{block}{name}weight": shape, f"{block}{name}bias": shape[:1]}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}{norm}.{leaf}": (width,) for leaf in ("weight", "bias")}
    for i in range(3):
        layer = f"decode_head.decoder_1.layers.{i}."
        linear = {
            "self_attn.in_proj_": (3 * embed, embed),
            "self_attn.out_proj.": (embed, embed),
            "linear1.": (4 * embed, embed),
            "linear2.": (embed, 4 * embed),
            **{f"multihead_attn.{name}.": (embed, embed) for name in ("q", "k", "v", "proj")},
        }
        for name, shape in linear.items():
            shapes |= {f"{layer}{name}weight": shape, f"{layer}{name}bias": shape[:1]}
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= {f"{layer}{norm}.{leaf}": (embed,) for leaf in ("weight", "bias")}
    torch.manual_seed(1)
    return {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
