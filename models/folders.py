"""Folders of checkpoints as people have them: which files hold the weights, and what is missing.

The names are those that `save_pretrained` of transformers and diffusers writes. Nothing here reads
a tensor, so that a folder can be judged before a run is paid for.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import InputError

PIPELINE_INDEX = "model_index.json"
"""The small file at the root of a pipeline."""
NETWORK_CONFIG = "config.json"
"""The small file beside the weights of a network."""

_STEMS = "model|diffusion_pytorch_model|pytorch_model"
_WHOLE = re.compile(rf"(?:{_STEMS})(?:\.(?P<variant>\w+))?\.(?P<kind>safetensors|bin)")
_INDEX = re.compile(rf"(?:{_STEMS})\.(?P<kind>safetensors|bin)\.index(?:\.(?P<variant>\w+))?\.json")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_DETECTORS = frozenset({"grounding-dino", "mm-grounding-dino", "owlv2"})
_SEGMENTERS = frozenset({"sam", "sam2", "sam2_video", "sam_hq"})
_CONCEPTS = frozenset({"sam3", "sam3_video", "sam3_lite_text"})
_TOKENIZED = _DETECTORS | _CONCEPTS | {"clip"}
_PROCESSED = _DETECTORS | _CONCEPTS | _SEGMENTERS
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_SIZE = 1024
SENTENCEPIECE_FILES = frozenset({"spiece.model", "tokenizer.model"})
"""Vocabularies that only the package sentencepiece reads."""
_WHOLE_VOCABULARIES = frozenset({"tokenizer.json", "vocab.txt"}) | SENTENCEPIECE_FILES
_LAYERS = re.compile("layers|depth")
_MOST_LAYERS = 1000
_LARGE_FOR_NO_NETWORK = 100_000
_FOREIGN = frozenset({".h5", ".msgpack", ".onnx", ".gguf", ".ckpt", ".pt", ".pth"})
_AGAIN = "download the model again into that folder, or set `model` to a folder that has it"


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold one network's weights.

    Attributes:
        files: All of them, with the index of those that are in several.
        variant: What stands between name and suffix, such as `fp16`; None in the usual names.
        safetensors: Whether they are safetensors; otherwise torch's own.
    """

    files: tuple[Path, ...]
    variant: str | None
    safetensors: bool

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{next(iter(self.files)).name}{more} with {NETWORK_CONFIG}"

    @property
    def options(self) -> dict[str, Any]:
        """What `from_pretrained` needs to take these files and no others."""
        return {"variant": self.variant, "use_safetensors": self.safetensors}


def find_weights(folder: Path) -> WeightFiles | None:
    """Find the weights of the network in a folder; None if there are none that torch reads.

    Those without variant come first, then safetensors before torch's own files.

    Raises:
        InputError: If there are several variants and none without, or the index of shards is
            damaged or names a shard that is missing.
    """
    found = sorted(_candidates(folder), key=lambda each: (each[0] != "", each[1], each[2]))
    if not found:
        return None
    variants = {variant for variant, _, _, _ in found}
    if "" not in variants and len(variants) > 1:
        message = (
            f"folder {str(folder)!r} holds its weights in the variants {sorted(variants)} and not "
            "in full, expected one: move the others elsewhere"
        )
        raise InputError(message)
    variant, in_torch_format, is_index, file = found[0]
    files = (file, *_shards(file)) if is_index else (file,)
    return WeightFiles(files, variant or None, not in_torch_format)


def require_complete(folder: Path, unneeded: frozenset[str] = frozenset()) -> None:
    """Check that a folder holds every file that its model is made of.

    Args:
        folder: Of a pipeline (with `model_index.json`) or of one network (with `config.json`).
        unneeded: Parts of a pipeline that will not be loaded.

    Raises:
        InputError: If something is missing, a weights file is empty, or a file is only Git LFS's
            pointer to what was not downloaded; says what, and the way out.
    """
    if (folder / PIPELINE_INDEX).is_file():
        parts = set(pipeline_parts(read_json(folder / PIPELINE_INDEX))) - unneeded
        if "safety_checker" not in parts:
            parts.discard("feature_extractor")
        for part in sorted(parts, key=lambda name: (name == "feature_extractor", name)):
            _require_part(folder, part)
    else:
        require_network(folder)
        model_type = read_json(folder / NETWORK_CONFIG).get("model_type")
        if model_type in _TOKENIZED:
            require_vocabulary(folder)
        if model_type in _PROCESSED:
            _require_processor(folder, "")


def require_marker_file(folder: Path, name: str) -> Path:
    """Find the small file by which a model is known, or say where it is instead.

    Raises:
        InputError: If it is not there.
    """
    path = folder / name
    if path.is_file():
        return path
    below = sorted(str(each.parent) for each in _below(folder, name))
    if below:
        message = (
            f"folder {str(folder)!r} cannot be loaded (no {name} in it, but there is one below); "
            f"set `model` to {' or '.join(repr(each) for each in below[:3])}"
        )
        raise InputError(message)
    raise InputError(_lack(folder, name))


def require_network(root: Path, part: str = "") -> WeightFiles:
    """Check that the configuration and the weights of a network are in its folder.

    Args:
        root: Folder of the model.
        part: Folder of the network in it, if the model is a pipeline.

    Returns:
        The files that hold the weights.

    Raises:
        InputError: If something is missing, empty, or only Git LFS's pointer to a file.
    """
    folder = root / part
    _require_file(root, f"{part}/{NETWORK_CONFIG}".lstrip("/"))
    weights = find_weights(folder)
    if weights is None:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in _FOREIGN)
        instead = f" (it has {', '.join(others[:3])}, which torch cannot read)" if others else ""
        where = f" in {part!r}" if part else ""
        name = "diffusion_pytorch_model" if part in {"unet", "transformer", "vae"} else "model"
        raise InputError(_lack(root, f"weights{where}: no {name}.safetensors{instead}", part))
    for file in weights.files:
        refuse_pointer(file)
        if not file.stat().st_size:
            message = f"model file {str(file)!r} is empty, expected weights; {_AGAIN}"
            raise InputError(message)
    _refuse_pointers(folder)
    config = folder / NETWORK_CONFIG
    require_possible(config, read_json(config), sum(f.stat().st_size for f in weights.files))
    return weights


def require_vocabulary(folder: Path) -> None:
    """Check that a folder holds a whole vocabulary, in any of the forms in which tokenizers save.

    Raises:
        InputError: If it does not; names what is missing.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    if not names & _WHOLE_VOCABULARIES:
        pair = {"vocab.json", "merges.txt"}
        lacking = sorted(pair - names) if pair & names else ["vocabulary"]
        if lacking:
            message = (
                f"folder {str(folder)!r} cannot be loaded (its tokenizer has no "
                f"{' and no '.join(lacking)}; expected tokenizer.json, vocab.json with merges.txt, "
                f"vocab.txt, or a file of sentencepiece); {_AGAIN}"
            )
            raise InputError(message)
    _refuse_pointers(folder)


def refuse_pointer(path: Path) -> None:
    """Refuse a file that only says what was not downloaded.

    Raises:
        InputError: If it is a pointer of Git LFS.
    """
    if path.stat().st_size > _POINTER_SIZE:
        return
    with path.open("rb") as file:
        if not file.read(len(_POINTER)).startswith(_POINTER):
            return
    message = (
        f"model file {str(path)!r} is a Git LFS pointer, expected the file that it points to; run "
        "'git lfs pull' in that folder"
    )
    raise InputError(message)


def require_possible(path: Path, settings: dict[str, Any], size: int) -> None:
    """Refuse a configuration of a network that no machine could build.

    A network of which these weights are all has no more of anything than they have bytes.

    Args:
        path: Where the configuration stands.
        settings: What it says.
        size: Bytes of the weights beside it.

    Raises:
        InputError: If it asks for more; names what.
    """
    for name, number in _numbers(settings):
        most = _MOST_LAYERS if _LAYERS.search(name) else max(size, _LARGE_FOR_NO_NETWORK)
        if number > most:
            message = (
                f"model file {str(path)!r} says {name!r} is {number}, expected at most {most} with "
                f"the weights beside it; {_AGAIN}"
            )
            raise InputError(message)


def pipeline_parts(index: dict[str, Any]) -> Iterator[str]:
    """Names of the parts that a pipeline's index lists; what it has not is null there.

    Raises:
        InputError: If an entry is not a pair of a library and a class.
    """
    for name, entry in index.items():
        if not isinstance(entry, list) or entry == [None, None]:
            continue
        if len(entry) != 2 or not all(isinstance(word, str) for word in entry):
            message = (
                f"{PIPELINE_INDEX} says {name!r} is {entry!r}, expected a library and a class; "
                "download the model again"
            )
            raise InputError(message)
        yield name


def read_json(path: Path) -> dict[str, Any]:
    """Read a checkpoint's JSON file.

    Raises:
        InputError: If it is not a JSON object, or is Git LFS's pointer to one.
    """
    refuse_pointer(path)
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"model file {str(path)!r} is not JSON ({error}); download the model again"
        raise InputError(message) from error
    if not isinstance(contents, dict):
        message = f"model file {str(path)!r} is not a JSON object; download the model again"
        raise InputError(message)
    return contents


def _candidates(folder: Path) -> Iterator[tuple[str, bool, bool, Path]]:
    """Variant (empty for none), whether in torch's format, whether an index, and the file."""
    for path in folder.iterdir() if folder.is_dir() else ():
        for pattern in (_WHOLE, _INDEX):
            match = pattern.fullmatch(path.name)
            if match:
                yield match["variant"] or "", match["kind"] == "bin", pattern is _INDEX, path


def _shards(index: Path) -> Iterator[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        message = f"model file {str(index)!r} names no shards; download the model again"
        raise InputError(message)
    for name in sorted({str(name) for name in names.values()}):
        shard = index.with_name(name) if name and name == Path(name).name else index / name
        if not shard.is_file():
            raise InputError(_lack(index.parent, f"{name}, which {index.name} names"))
        yield shard


def _require_part(root: Path, part: str) -> None:
    folder = root / part
    if not folder.is_dir():
        raise InputError(_lack(root, f"folder {part!r}, which {PIPELINE_INDEX} names", part))
    if part.startswith("tokenizer"):
        require_vocabulary(folder)
    elif part.startswith("scheduler"):
        _require_file(root, f"{part}/scheduler_config.json")
    elif part in {"feature_extractor", "image_processor"}:
        _require_processor(root, part)
    else:
        require_network(root, part)


def _numbers(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Names and values of all integers but those of words."""
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(name, each) for each in value]
        elif isinstance(value, int) and not name.endswith(("_id", "_ids")):
            yield name, value


def _require_processor(root: Path, part: str) -> None:
    if not any((root / part / name).is_file() for name in _PROCESSORS):
        raise InputError(_lack(root, f"{part}/{_PROCESSORS[0]}".lstrip("/"), part))


def _require_file(root: Path, name: str) -> None:
    if not (root / name).is_file():
        raise InputError(_lack(root, name, name.partition("/")[0]))


def _refuse_pointers(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".json", ".txt"}:
            refuse_pointer(path)


def _below(folder: Path, name: str) -> Iterator[Path]:
    """Where a file is up to two folders down, as in the hub's cache."""
    yield from folder.glob(f"*/{name}")
    yield from folder.glob(f"*/*/{name}")


def _lack(folder: Path, what: str, part: str = "") -> str:
    way_out = _AGAIN
    if part in {"safety_checker", "feature_extractor"}:
        way_out += ", or do without the judge of images with `safety_checker: false`"
    return f"folder {str(folder)!r} cannot be loaded (no {what}); {way_out}"
