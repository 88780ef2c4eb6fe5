"""Checkpoints of transformers as folders of original ones, and the packages fitted to small ones.

The packages fix a width of 256 in their code, and the geometry of their image towers. For the
miniature's weights these are replaced here, in the packages; a network of width 256 needs no help.
"""

import importlib
import json
import math
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from original_names import original_detector, original_segmenter

TEXT = "bert-base-uncased"
_SINE = {"position_embedding": "sine", "pe_temperatureH": 20, "pe_temperatureW": 20}
_SETTINGS = _SINE | {
    "batch_size": 1,
    "modelname": "groundingdino",
    "backbone": "swin_T_224_1k",
    "return_interm_indices": [1, 2, 3],
    "backbone_freeze_keywords": None,
    "pre_norm": False,
    "dropout": 0.0,
    "query_dim": 4,
    "num_patterns": 0,
    "two_stage_type": "standard",
    "two_stage_bbox_embed_share": False,
    "two_stage_class_embed_share": False,
    "transformer_activation": "relu",
    "dec_pred_bbox_embed_share": True,
    "dn_box_noise_scale": 1.0,
    "dn_label_noise_ratio": 0.5,
    "dn_label_coef": 1.0,
    "dn_bbox_coef": 1.0,
    "embed_init_tgt": True,
    "dn_labelbook_size": 2000,
    "text_encoder_type": "bert-base-uncased",
    "use_text_enhancer": True,
    "use_fusion_layer": True,
    "use_checkpoint": True,
    "use_transformer_ckpt": True,
    "use_text_cross_attention": True,
    "text_dropout": 0.0,
    "fusion_dropout": 0.0,
    "fusion_droppath": 0.1,
    "sub_sentence_present": True,
}


def save_detector(network, tokenizer, folder, **changes):
    """Save Grounding DINO of transformers as its authors would have; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = network.config
    settings = _SETTINGS | {
        "enc_layers": config.encoder_layers,
        "dec_layers": config.decoder_layers,
        "dim_feedforward": config.encoder_ffn_dim,
        "hidden_dim": config.d_model,
        "nheads": config.encoder_attention_heads,
        "num_queries": config.num_queries,
        "num_feature_levels": config.num_feature_levels,
        "enc_n_points": config.encoder_n_points,
        "dec_n_points": config.decoder_n_points,
        "max_text_len": config.max_text_len,
    }
    lines = [f"{name} = {value!r}" for name, value in (settings | changes).items()]
    (folder / "settings.py").write_text("\n".join(lines) + "\n")
    weights = original_detector(network.state_dict())
    torch.save({"model": {f"module.{n}": t for n, t in weights.items()}}, folder / "weights.pth")
    tokenizer.save_pretrained(folder / TEXT)
    text = config.text_config.to_dict() | {"model_type": "bert"}
    (folder / TEXT / "config.json").write_text(json.dumps(text))
    return str(folder)


def save_segmenter(network, folder):
    """Save SAM of transformers as its authors would have; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(original_segmenter(network.state_dict()), folder / "sam.pth")
    return str(folder)


@contextmanager
def fitted_detector(config):
    """Let `groundingdino` build networks of another width and with another image tower."""
    package = "groundingdino.models.GroundingDINO"
    transformer = importlib.import_module(f"{package}.transformer")
    whole = importlib.import_module(f"{package}.groundingdino")
    width = config.d_model
    with pytest.MonkeyPatch.context() as patch:
        text = transformer.get_sine_pos_embed
        patch.setattr(
            transformer,
            "get_sine_pos_embed",
            lambda places, num_pos_feats, **options: text(places, num_pos_feats=width, **options),
        )
        patch.setattr(transformer, "gen_sineembed_for_position", partial(_waves, width // 2))
        patch.setattr(whole, "build_backbone", partial(_tower, config.backbone_config))
        yield


@contextmanager
def fitted_segmenter(config):
    """Let `segment_anything` build networks of another size under the name of the base one."""
    package = importlib.import_module("segment_anything")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(package.sam_model_registry, "vit_b", partial(_sam, config))
        yield


def _waves(feats, places):
    """What the package computes of boxes, in another width: (queries, batch, 4) to 4 x feats."""
    steps = torch.arange(feats, dtype=torch.float32, device=places.device)
    steps = 10000 ** (2 * (steps // 2) / feats)
    angles = places[..., [1, 0, 2, 3]][..., None] * (2 * math.pi) / steps
    waves = torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1)
    return waves.flatten(-3)


def _tower(config, settings):
    backbone = importlib.import_module("groundingdino.models.GroundingDINO.backbone.backbone")
    stages = [index - 1 for index in config.out_indices]
    swin = backbone.build_swin_transformer.__globals__["SwinTransformer"](
        pretrain_img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_size,
        out_indices=tuple(stages),
        dilation=False,
        use_checkpoint=settings.use_checkpoint,
    )
    tower = backbone.Joiner(swin, backbone.build_position_encoding(settings))
    tower.num_channels = [swin.num_features[stage] for stage in stages]
    return tower


def _sam(config):
    modeling = importlib.import_module("segment_anything.modeling")
    vision, prompt, decoder = (
        config.vision_config,
        config.prompt_encoder_config,
        config.mask_decoder_config,
    )
    side = vision.image_size // vision.patch_size
    return modeling.Sam(
        modeling.ImageEncoderViT(
            depth=vision.num_hidden_layers,
            embed_dim=vision.hidden_size,
            img_size=vision.image_size,
            mlp_ratio=vision.mlp_dim / vision.hidden_size,
            norm_layer=partial(torch.nn.LayerNorm, eps=vision.layer_norm_eps),
            num_heads=vision.num_attention_heads,
            patch_size=vision.patch_size,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=vision.global_attn_indexes,
            window_size=vision.window_size,
            out_chans=vision.output_channels,
        ),
        modeling.PromptEncoder(
            embed_dim=prompt.hidden_size,
            image_embedding_size=(side, side),
            input_image_size=(vision.image_size, vision.image_size),
            mask_in_chans=prompt.mask_input_channels,
        ),
        modeling.MaskDecoder(
            num_multimask_outputs=decoder.num_multimask_outputs,
            transformer=modeling.TwoWayTransformer(
                depth=decoder.num_hidden_layers,
                embedding_dim=decoder.hidden_size,
                mlp_dim=decoder.mlp_dim,
                num_heads=decoder.num_attention_heads,
            ),
            transformer_dim=decoder.hidden_size,
            iou_head_depth=decoder.iou_head_depth,
            iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        ),
    )
