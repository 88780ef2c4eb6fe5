"""Weights of transformers under the names that the packages of the papers give them.

Rules are applied in turn. Attention that the packages keep in one tensor (queries, keys and values
below each other) is put together afterwards.
"""

import re

import torch

_DETECTOR = [
    (r"^model\.backbone\.conv_encoder\.model\.(?:swin\.)?", "backbone.0."),
    (r"^model\.text_backbone\.", "bert."),
    (r"^model\.text_projection\.", "feat_map."),
    (r"^model\.input_proj_vision\.", "input_proj."),
    (r"^model\.query_position_embeddings\.", "transformer.tgt_embed."),
    (r"^model\.level_embed", "transformer.level_embed"),
    (r"^model\.enc_output(_norm)?\.", r"transformer.enc_output\1."),
    (r"^model\.encoder_output_bbox_embed\.", "transformer.enc_out_bbox_embed."),
    (r"^model\.encoder\.layers\.(\d+)\.deformable_layer\.", r"transformer.encoder.layers.\1."),
    (
        r"^model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.",
        r"transformer.encoder.text_layers.\1.",
    ),
    (r"^model\.encoder\.layers\.(\d+)\.fusion_layer\.", r"transformer.encoder.fusion_layers.\1."),
    (r"^model\.decoder\.layer_norm\.", "transformer.decoder.norm."),
    (r"^model\.decoder\.reference_points_head\.", "transformer.decoder.ref_point_head."),
    (r"^model\.decoder\.bbox_embed\.", "bbox_embed."),
    (r"^model\.decoder\.", "transformer.decoder."),
    (r"^(backbone\.0\.)embeddings\.norm\.", r"\1patch_embed.norm."),
    (r"^(backbone\.0\.)embeddings\.patch_embeddings\.projection\.", r"\1patch_embed.proj."),
    (r"^(backbone\.0\.)encoder\.layers\.", r"\1layers."),
    (r"^(backbone\.0\.)hidden_states_norms\.stage1\.", r"\1norm0."),
    (r"^(backbone\.0\.)hidden_states_norms\.stage2\.", r"\1norm1."),
    (r"^(backbone\.0\.)hidden_states_norms\.stage3\.", r"\1norm2."),
    (r"^(backbone\.0\.)hidden_states_norms\.stage4\.", r"\1norm3."),
    (r"^(backbone\..*)\.attention\.output\.dense\.", r"\1.attn.proj."),
    (r"^(backbone\..*)\.attention\.self\.", r"\1.attn."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"(\.blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(\.blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"(\.encoder\.layers\.\d+|\.text_layers\.\d+|\.decoder\.layers\.\d+)\.fc", r"\1.linear"),
    (r"(\.encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"(\.encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"(\.text_layers\.\d+)\.layer_norm_before\.", r"\1.norm1."),
    (r"(\.text_layers\.\d+)\.layer_norm_after\.", r"\1.norm2."),
    (r"(\.fusion_layers\.\d+)\.layer_norm_vision\.", r"\1.layer_norm_v."),
    (r"(\.fusion_layers\.\d+)\.layer_norm_text\.", r"\1.layer_norm_l."),
    (r"(\.fusion_layers\.\d+)\.vision_param$", r"\1.gamma_v"),
    (r"(\.fusion_layers\.\d+)\.text_param$", r"\1.gamma_l"),
    (r"(\.fusion_layers\.\d+\.attn)\.(values_|out_)?vision_proj\.", r"\1.\2v_proj."),
    (r"(\.fusion_layers\.\d+\.attn)\.(values_|out_)?text_proj\.", r"\1.\2l_proj."),
    (r"(\.decoder\.layers\.\d+)\.encoder_attn\.", r"\1.cross_attn."),
    (r"(\.decoder\.layers\.\d+)\.encoder_attn_layer_norm\.", r"\1.norm1."),
    (r"(\.decoder\.layers\.\d+)\.encoder_attn_text\.", r"\1.ca_text."),
    (r"(\.decoder\.layers\.\d+)\.encoder_attn_text_layer_norm\.", r"\1.catext_norm."),
    (r"(\.decoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm2."),
    (r"(\.decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
]
_SEGMENTER = [
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"image_encoder.blocks.\1.norm\2."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.", "image_encoder."),
    (
        r"^shared_image_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"(_head|_mlps\.\d)\.layers\.0\.", r"\1.layers.1."),
    (r"(_head|_mlps\.\d)\.proj_in\.", r"\1.layers.0."),
    (r"(_head|_mlps\.\d)\.proj_out\.", r"\1.layers.2."),
    (r"(\.transformer)\.layer_norm_final_attn\.", r"\1.norm_final_attn."),
    (r"(\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
]
_PACKED = [
    (r"^(backbone\.0\..*\.attn)\.query\.(weight|bias)$", r"\1.qkv.\2"),
    (r"^(transformer\..*\.(?:self_attn|ca_text))\.query\.(weight|bias)$", r"\1.in_proj_\2"),
]
_UNUSED = "model.backbone.conv_encoder.model.swin.layernorm."


def original_detector(tensors):
    """Grounding DINO: the state dict of transformers as `groundingdino` names it."""
    renamed = {_renamed(n, _DETECTOR): t for n, t in tensors.items() if not n.startswith(_UNUSED)}
    for pattern, packed in _PACKED:
        for name in [name for name in renamed if re.match(pattern, name)]:
            parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            renamed[re.sub(pattern, packed, name)] = torch.cat([renamed.pop(p) for p in parts])
    width = renamed["feat_map.weight"].shape[1]
    pooler = {"weight": torch.zeros(width, width), "bias": torch.zeros(width)}  # has no effect
    renamed |= {f"bert.pooler.dense.{name}": tensor for name, tensor in pooler.items()}
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def original_segmenter(tensors):
    """SAM: the state dict of transformers as `segment_anything` names it."""
    renamed = {_renamed(name, _SEGMENTER): tensor for name, tensor in tensors.items()}
    renamed.pop("prompt_encoder.shared_embedding.positional_embedding", None)
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def _renamed(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
