"""Small checkpoints with random weights, saved in the layout of the hub."""

import json
import string

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertTokenizerFast,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2TextConfig,
    Owlv2VisionConfig,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamHQConfig,
    SamHQMaskDecoderConfig,
    SamHQModel,
    SamHQPromptEncoderConfig,
    SamHQVisionConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SwinConfig,
)

from models.processors import image_processor_class
from tiny_pipelines import build_pipeline_of
from tiny_sam3 import save_sam3


@pytest.fixture(scope="session")
def build_pipeline():
    """Saves a Stable Diffusion checkpoint in a folder and returns its path."""
    return _build_pipeline


@pytest.fixture(scope="session")
def build_family():
    """Saves a pipeline of the class that is named in a folder and returns its path."""
    return build_pipeline_of


@pytest.fixture(scope="session")
def saved_family(tmp_path_factory):
    """A function from a class to the folder of such a pipeline, which nobody may change."""
    saved = {}

    def folder(name):
        if name not in saved:
            saved[name] = build_pipeline_of(name, tmp_path_factory.mktemp(name))
        return saved[name]

    return folder


@pytest.fixture(scope="session")
def lose_tensor():
    """Takes out of the weights in a folder the tensors whose names have a part."""

    def lose(folder, part):
        (file,) = folder.glob("*.safetensors")
        state = {name: each for name, each in load_file(file).items() if part not in name}
        save_file(state, file, {"format": "pt"})

    return lose


@pytest.fixture(scope="session")
def build_detector():
    """Saves a Grounding DINO checkpoint in a folder and returns its path."""
    return _build_detector


@pytest.fixture(scope="session")
def build_mm_detector():
    """Saves an MM-Grounding-DINO checkpoint in a folder and returns its path."""
    return _build_mm_detector


@pytest.fixture(scope="session")
def build_owlv2():
    """Saves an OWLv2 checkpoint in a folder and returns its path."""
    return _build_owlv2


@pytest.fixture(scope="session")
def build_sam():
    """Saves a SAM checkpoint in a folder and returns its path."""
    return _build_sam


@pytest.fixture(scope="session")
def build_sam3():
    """Saves a SAM 3 checkpoint in a folder and returns its path."""
    return save_sam3


@pytest.fixture(scope="session")
def build_sam_hq():
    """Saves a SAM-HQ checkpoint in a folder and returns its path."""
    return _build_sam_hq


@pytest.fixture(scope="session")
def build_sam2():
    """Saves a SAM 2 checkpoint in a folder and returns its path."""
    return _build_sam2


def _build_tokenizer(folder, before=()):
    """Single letters are words, after those that come before."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = [*before, "<|startoftext|>", "<|endoftext|>"]
    words = {mark: number for number, mark in enumerate(marks)}
    for letter in string.ascii_lowercase:
        words[letter] = len(words)
        words[letter + "</w>"] = len(words)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=20
    )


def _build_safety_checker(threshold):
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    side |= {"num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**side, "vocab_size": 60, "projection_dim": 16},
        vision_config={**side, "image_size": 16, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(threshold)
    return checker


def _build_pipeline(folder, safety_threshold=None):
    """Save a Stable Diffusion checkpoint in the hub's layout."""
    torch.manual_seed(0)
    tokenizer = _build_tokenizer(folder)
    text = CLIPTextConfig(
        vocab_size=54,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    encoder = CLIPTextModel(text)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=16,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
    )
    for network in (unet, vae):  # fresh networks paint an even grey
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(2.0)
    checker = None if safety_threshold is None else _build_safety_checker(safety_threshold)
    extractor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1, timestep_spacing="trailing"),
        safety_checker=checker,
        feature_extractor=None if checker is None else extractor,
        requires_safety_checker=checker is not None,
    ).save_pretrained(folder)
    return str(folder)


SPECIAL = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}
WORDS = ["bus", "cat", "school", "fish", "mush", "##room", "tree", "a", "b", "c", "-"]


def _build_processor(folder):
    folder.mkdir(parents=True, exist_ok=True)
    words = SPECIAL | {word: 200 + index for index, word in enumerate(WORDS)}
    ids = {index: word for word, index in words.items()}
    vocabulary = [ids.get(index, f"[unused{index}]") for index in range(1030)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return GroundingDinoProcessor(images, tokenizer)


def _save_detector(folder, model):
    """Save a network of Grounding DINO's kind, with scores and boxes that differ."""
    _build_processor(folder).save_pretrained(folder)
    # A fresh box head gives every query the size of its proposal: let boxes and scores differ.
    for name, parameter in model.named_parameters():
        if "bbox_embed" in name:
            parameter.data = torch.randn_like(parameter) * 0.5
        if "text_projection" in name and parameter.ndim > 1:
            parameter.data = parameter.data * 4
    model.save_pretrained(folder)
    return str(folder)


def _dino_sizes():
    """16 queries, 24 text tokens."""
    return {
        "backbone_config": SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[2, 2, 2, 2],
            window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
        "text_config": BertConfig(
            vocab_size=1030,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 16,
        "num_feature_levels": 3,
        "max_text_len": 24,
        "encoder_n_points": 2,
        "decoder_n_points": 2,
    }


def _build_detector(folder):
    """Save a Grounding DINO checkpoint in the hub's layout."""
    torch.manual_seed(0)
    config = GroundingDinoConfig(**_dino_sizes())
    return _save_detector(folder, GroundingDinoForObjectDetection(config))


def _build_mm_detector(folder):
    """Save an MM-Grounding-DINO checkpoint in the hub's layout."""
    torch.manual_seed(0)
    config = MMGroundingDinoConfig(**_dino_sizes())
    model = MMGroundingDinoForObjectDetection(config)
    for name, parameter in model.named_parameters():
        if "class_embed" in name:
            parameter.data.fill_(-0.5)  # a fresh one says that nothing is there
    return _save_detector(folder, model)


def _build_owlv2(folder):
    """Save an OWLv2 checkpoint in the hub's layout: 64 px, 64 queries, 12 text tokens."""
    torch.manual_seed(0)
    tokenizer = _build_tokenizer(folder, before=["!"])  # a text of zeros is none to the network
    side = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    side |= {"num_attention_heads": 2, "initializer_range": 0.2}
    text = {"vocab_size": 55, "max_position_embeddings": 12}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = Owlv2Config(
        text_config=Owlv2TextConfig(**side, **text).to_dict(),
        vision_config=Owlv2VisionConfig(**side, image_size=64, patch_size=8).to_dict(),
        projection_dim=32,
    )
    model = Owlv2ForObjectDetection(config)
    torch.manual_seed(0)  # releases of the library begin with other numbers
    for name, parameter in model.named_parameters():
        if name.startswith(("box_head", "class_head")):
            parameter.data = torch.randn_like(parameter) * 0.3
        elif parameter.ndim > 1:
            parameter.data = torch.randn_like(parameter) * 0.2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = image_processor_class("Owlv2ImageProcessor")
    images(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


def _sam_sizes():
    """64 px input, 64 px masks."""
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 4,
        "window_size": 4,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
        "mlp_dim": 32,
        "initializer_range": 0.1,
    }
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 4, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_depth": 2,
        "iou_head_hidden_dim": 16,
    }
    return vision, prompt, decoder


def _save_sam(folder, model):
    model.save_pretrained(folder)
    SamProcessor(
        SamImageProcessor(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 64},
            mask_pad_size={"height": 64, "width": 64},
        )
    ).save_pretrained(folder)
    return str(folder)


def _build_sam(folder):
    """Save a SAM checkpoint in the hub's layout."""
    torch.manual_seed(0)
    vision, prompt, decoder = _sam_sizes()
    config = SamConfig(
        vision_config=SamVisionConfig(**vision).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(**prompt).to_dict(),
        mask_decoder_config=SamMaskDecoderConfig(**decoder).to_dict(),
        initializer_range=0.3,
    )
    return _save_sam(folder, SamModel(config))


def _build_sam_hq(folder):
    """Save a SAM-HQ checkpoint in the hub's layout."""
    torch.manual_seed(0)
    vision, prompt, decoder = _sam_sizes()
    config = SamHQConfig(
        vision_config=SamHQVisionConfig(**vision).to_dict(),
        prompt_encoder_config=SamHQPromptEncoderConfig(**prompt).to_dict(),
        mask_decoder_config=SamHQMaskDecoderConfig(**decoder, vit_dim=16).to_dict(),
        initializer_range=0.3,
    )
    return _save_sam(folder, SamHQModel(config))


def _build_sam2(folder):
    """Save a SAM 2 checkpoint in the hub's layout: 64 px input, 16 px masks."""
    torch.manual_seed(0)
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 2, 2, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
        initializer_range=0.2,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone.to_dict(),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    )
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "iou_head_depth": 2,
        "iou_head_hidden_dim": 16,
    }
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    model = Sam2Model(
        Sam2Config(
            vision_config=vision.to_dict(),
            prompt_encoder_config=Sam2PromptEncoderConfig(**prompt).to_dict(),
            mask_decoder_config=Sam2MaskDecoderConfig(**decoder).to_dict(),
            initializer_range=0.3,
        )
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn_like(parameter) * 0.3
    model.save_pretrained(folder)
    described = {
        "image_processor_type": "Sam2ImageProcessorFast",
        "do_resize": True,
        "size": {"height": 64, "width": 64},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "mask_size": {"height": 16, "width": 16},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return str(folder)
