"""Small pipelines of every family, with random weights, saved in the layout of the hub."""

import json
import string

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

LETTERS = string.ascii_lowercase
CLIP_WORDS = 54
WORDS = 64
WIDTH = 16


def _clip_tokenizer(folder):
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in LETTERS:
        words[letter] = len(words)
        words[letter + "</w>"] = len(words)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=20
    )


SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "</s>"}


def _unigram(folder, name, letters=LETTERS, **options):
    """A tokenizer of letters, of one of the classes that sentencepiece is behind."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -2.0)]
    words += [(start + letter, -3.0) for start in ("", "▁") for letter in letters]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL, **options)
    plain.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": name}))
    return getattr(transformers, name).from_pretrained(folder)


def _t5_tokenizer(folder):
    return _unigram(folder, "T5TokenizerFast", extra_ids=0)


def _gemma_tokenizer(folder):
    # Few letters, so that the long instruction before each text becomes few tokens.
    return _unigram(folder, "GemmaTokenizerFast", "bx")


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def _qwen_tokenizer(folder):
    """Bytes, with the words that frame a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {letter: number for number, letter in enumerate(alphabet)}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.Qwen2TokenizerFast(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        vocab_file=str(folder / "vocab.json"),
        merges_file=str(folder / "merges.txt"),
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


_LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}


def _clip(kind="CLIPTextModel"):
    config = transformers.CLIPTextConfig(
        vocab_size=CLIP_WORDS,
        hidden_size=WIDTH,
        intermediate_size=32,
        max_position_embeddings=20,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **_LAYERS,
    )
    return getattr(transformers, kind)(config)


def _t5():
    config = transformers.T5Config(
        vocab_size=WORDS, d_model=WIDTH, d_ff=32, d_kv=8, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config)


_GROUPED = {"hidden_size": WIDTH, "intermediate_size": 32, "num_key_value_heads": 1, **_LAYERS}


def _gemma():
    config = transformers.Gemma2Config(
        vocab_size=WORDS, head_dim=8, sliding_window=4096, query_pre_attn_scalar=8, **_GROUPED
    )
    return transformers.Gemma2Model(config)


def _qwen3():
    config = transformers.Qwen3Config(
        vocab_size=262, head_dim=8, max_position_embeddings=1024, **_GROUPED
    )
    return transformers.Qwen3Model(config)


def _qwen_vl():
    scaling = {"type": "mrope", "mrope_section": [1, 1, 2]}
    text = {**_GROUPED, "vocab_size": 262, "max_position_embeddings": 2048}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "rope_scaling": scaling},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        image_token_id=260,
        video_token_id=261,
        vision_start_token_id=258,
        vision_end_token_id=259,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def _vae(channels=4, **options):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        **options,
    )


def _flow_vae(channels):
    bare = {"use_quant_conv": False, "use_post_quant_conv": False}
    return _vae(channels, shift_factor=0.1, scaling_factor=0.5, **bare)


def _unet(width=WIDTH, **options):
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=width,
        norm_num_groups=4,
        **options,
    )


def _diffusion(kind=diffusers.DDIMScheduler, **options):
    return kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options)


def _flow(**options):
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def _stable_diffusion(folder, **options):
    own = _diffusion(clip_sample=False, steps_offset=1, timestep_spacing="trailing")
    return _of_clip(folder, _unet(**options), own)


def _latent_consistency(folder):
    own = _diffusion(diffusers.LCMScheduler)
    return _of_clip(folder, _unet(time_cond_proj_dim=8), own)


def _of_clip(folder, unet, scheduler):
    return {
        "vae": _vae(),
        "text_encoder": _clip(),
        "tokenizer": _clip_tokenizer(folder),
        "unet": unet,
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _two_clips(folder):
    return {
        "text_encoder": _clip(),
        "tokenizer": _clip_tokenizer(folder),
        "text_encoder_2": _clip("CLIPTextModelWithProjection"),
        "tokenizer_2": _clip_tokenizer(folder),
    }


def _xl(folder):
    unet = _unet(
        2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + WIDTH,
    )
    own = _diffusion(diffusers.EulerDiscreteScheduler)
    return {"vae": _vae(), "unet": unet, "scheduler": own, **_two_clips(folder)}


def _three(folder):
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=4,
        pos_embed_max_size=32,
    )
    clips = _two_clips(folder) | {"text_encoder": _clip("CLIPTextModelWithProjection")}
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=WORDS, d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=2
        )
    )
    return {
        "vae": _flow_vae(4),
        "transformer": transformer,
        "scheduler": _flow(shift=3.0),
        "text_encoder_3": t5,
        "tokenizer_3": _t5_tokenizer(folder),
        **clips,
    }


def _flux(folder, guidance_embeds=True):
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=guidance_embeds,
    )
    return {
        "vae": _flow_vae(4),
        "transformer": transformer,
        "scheduler": _flow(use_dynamic_shifting=True),
        "text_encoder": _clip(),
        "tokenizer": _clip_tokenizer(folder),
        "text_encoder_2": _t5(),
        "tokenizer_2": _t5_tokenizer(folder),
    }


def _pixart(folder):
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    return {
        "vae": _vae(),
        "transformer": transformer,
        "scheduler": _diffusion(diffusers.DPMSolverMultistepScheduler),
        "text_encoder": _t5(),
        "tokenizer": _t5_tokenizer(folder),
    }


def _sana(folder):
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        sample_size=32,
    )
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    own = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return {
        "vae": vae,
        "transformer": transformer,
        "scheduler": own,
        "text_encoder": _gemma(),
        "tokenizer": _gemma_tokenizer(folder),
    }


def _z_image(folder):
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    for name, parameter in transformer.named_parameters():
        if "pad_token" in name:
            parameter.data.normal_()
    return {
        "vae": _flow_vae(4),
        "transformer": transformer,
        "scheduler": _flow(shift=3.0),
        "text_encoder": _qwen3(),
        "tokenizer": _qwen_tokenizer(folder),
    }


def _qwen_image(folder):
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1] * 4,
        latents_std=[1.5] * 4,
    )
    return {
        "vae": vae,
        "transformer": transformer,
        "scheduler": _flow(use_dynamic_shifting=True),
        "text_encoder": _qwen_vl(),
        "tokenizer": _qwen_tokenizer(folder),
    }


PARTS = {
    "StableDiffusionPipeline": _stable_diffusion,
    "LatentConsistencyModelPipeline": _latent_consistency,
    "StableDiffusionXLPipeline": _xl,
    "StableDiffusion3Pipeline": _three,
    "FluxPipeline": _flux,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
    "SanaPipeline": _sana,
    "ZImagePipeline": _z_image,
    "QwenImagePipeline": _qwen_image,
}


def build_pipeline_of(name, folder, *, change=None, **options):
    """Save a pipeline.

    Args:
        name: Its class.
        folder: Where.
        change: Changes its parts before they are saved, if given.
        options: Of the maker of its parts.
    """
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    parts = PARTS[name](folder, **options)
    for part in ("unet", "transformer", "vae"):  # fresh networks paint an even grey
        for parameter in parts[part].parameters() if part in parts else ():
            if parameter.ndim > 1:
                parameter.data.mul_(2.0)
            parameter.data.add_(0.02 * torch.randn_like(parameter))
    if change is not None:
        change(parts)
    getattr(diffusers, name)(**parts).save_pretrained(folder)
    return str(folder)
