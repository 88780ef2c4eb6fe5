"""The trained miniatures as the networks of their relatives, in the hub's layout.

Both relatives have more tensors than the miniatures, and get such that add nothing.
"""

import shutil
from pathlib import Path

import torch
from transformers import (
    GroundingDinoForObjectDetection,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SamHQConfig,
    SamHQModel,
    SamModel,
)

from models.weights import resolve_weights


def save_mm_grounding_dino(folder: Path) -> str:
    """Save the miniature's detector as MM-Grounding-DINO, which says the same; give its path.

    MM-Grounding-DINO divides the product of query and token by the root of their width. The norm in
    front of it is multiplied by that root, and the box head that reads the norm is divided by it.
    """
    source = _copy("weights:detector", folder)
    trained = GroundingDinoForObjectDetection.from_pretrained(source)
    described = trained.config.to_dict()
    for name in ("model_type", "architectures", "decoder_bbox_embed_share"):
        described.pop(name, None)
    # Heads of their own: the last one alone reads the norm, the others read what is before it.
    config = MMGroundingDinoConfig(**described, decoder_bbox_embed_share=False)
    torch.manual_seed(0)  # of what adds nothing
    network = MMGroundingDinoForObjectDetection(config)
    tensors = trained.state_dict()
    lacking = network.load_state_dict(tensors, strict=False)
    assert all("class_embed" in name for name in lacking.missing_keys)
    assert not lacking.unexpected_keys
    root = config.d_model**0.5
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("class_embed.bias") or ".class_embed." in f".{name}":
                parameter.zero_()
        network.model.decoder.layer_norm.weight.mul_(root)
        network.model.decoder.layer_norm.bias.mul_(root)
        network.bbox_embed[-1].layers[0].weight.div_(root)
    network.save_pretrained(folder)
    return str(folder)


def save_sam_hq(folder: Path) -> str:
    """Save the miniature's segmenter as SAM-HQ whose fine token adds nothing; give its path.

    The token is one more to look at for the others, so the masks are nearly the same.
    """
    source = _copy("weights:segmenter", folder)
    trained = SamModel.from_pretrained(source)
    described = {
        name: getattr(trained.config, name).to_dict()
        for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    }
    for part in described.values():
        part.pop("model_type", None)
    described["mask_decoder_config"]["vit_dim"] = trained.config.vision_config.hidden_size
    torch.manual_seed(0)  # of what adds nothing
    network = SamHQModel(SamHQConfig(**described))
    lacking = network.load_state_dict(trained.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    with torch.no_grad():
        network.mask_decoder.hq_token.weight.zero_()
        network.mask_decoder.hq_mask_mlp.proj_out.weight.zero_()
        network.mask_decoder.hq_mask_mlp.proj_out.bias.zero_()
    network.save_pretrained(folder)
    return str(folder)


def _copy(name: str, folder: Path) -> str:
    """Copy the files of the processors; give the place of the weights."""
    source = resolve_weights(name).source
    folder.mkdir(parents=True, exist_ok=True)
    for file in Path(source).iterdir():
        if file.suffix in {".json", ".txt"} and file.name not in {"config.json", "training.json"}:
            shutil.copy(file, folder)
    return source
