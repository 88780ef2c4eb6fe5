"""Where everything lies in a dataset: paths relative to its root, as `docs/formats.md` lists them.

Every path follows from what it holds; no class name is ever part of one.
"""

from storage.records import Stage

ENGINE_FOLDER = ".engine"
"""Everything but the tars and the card."""
SHARD_FOLDER = "data"
"""The tars, and nothing else."""
COMMIT_FOLDER = f"{ENGINE_FOLDER}/commits"
"""Records of what is done."""
INTENT_FOLDER = f"{ENGINE_FOLDER}/intents"
"""Records of commits that have begun."""
QUARANTINE_FOLDER = f"{ENGINE_FOLDER}/quarantine"
"""What was put aside, batch by batch."""
OBJECT_FOLDER = f"{ENGINE_FOLDER}/objects"
"""Outputs of the stages, by their digest."""
PARAMETER_FOLDER = f"{ENGINE_FOLDER}/parameters"
"""With what each slice was generated last."""
EXCLUSION_FOLDER = f"{ENGINE_FOLDER}/exclusions"
"""Which finished samples are left out, act by act."""
MARK_FOLDER = f"{ENGINE_FOLDER}/marks"
"""Which samples are flagged, and notes about them, act by act."""
CORRECTION_FOLDER = f"{ENGINE_FOLDER}/corrections"
"""Which masks of finished samples were corrected, act by act."""
SPEC_PATH = f"{ENGINE_FOLDER}/spec.json"
"""What the dataset is; its presence makes a folder a dataset."""
SPEC_COPY_PATH = f"{ENGINE_FOLDER}/spec.copy.json"
"""The same once more, to restore it from."""
CARD_PATH = "README.md"
"""The dataset card."""

UNIT_NAME = r"^[0-9a-f]{8}-(\d{6}|p\d{7})$"
"""What a shard, or a cell, is called."""

_KEY_DIGITS = 16


def shard_name(slice_id: str, index: int) -> str:
    """``<slice id>-<six digits>``: unique in a dataset."""
    return f"{slice_id}-{index:06d}"


def cell_name(slice_id: str, index: int) -> str:
    """``<slice id>-p<seven digits>``: unique in a dataset, and no shard's name."""
    return f"{slice_id}-p{index:07d}"


def is_cell(name: str) -> bool:
    """Whether a name is a cell's, not a shard's."""
    return "-p" in name


def commit_path(stage: Stage, shard: str, key: str) -> str:
    """Where the record of a finished output lies."""
    return f"{COMMIT_FOLDER}/{stage}/{shard}/{key[:_KEY_DIGITS]}.json"


def intent_path(stage: Stage, shard: str, key: str) -> str:
    """Where the record of an output lies while it is being committed."""
    return f"{INTENT_FOLDER}/{stage}/{shard}/{key[:_KEY_DIGITS]}.json"


def claim_path(shard: str) -> str:
    """Where the claim on a shard lies: who makes it, from its first stage to its last."""
    return f"{ENGINE_FOLDER}/leases/claims/{shard}.lock"


def lease_path(stage: Stage, shard: str) -> str:
    """Where the lease on an output lies."""
    return f"{ENGINE_FOLDER}/leases/{stage}/{shard}.lock"


def output_path(stage: Stage, shard: str, sha256: str) -> str:
    """Where an output lies: a tar under its shard's name, others under their digest."""
    if stage is Stage.SHARDS:
        return shard_path(shard)
    return f"{OBJECT_FOLDER}/{sha256[:2]}/{sha256}"


def shard_path(shard: str) -> str:
    """Where a shard's tar lies."""
    return f"{SHARD_FOLDER}/train-{shard}.tar"


def manifest_path(shard: str) -> str:
    """Where a shard's manifest lies."""
    return f"{ENGINE_FOLDER}/manifests/{shard}.parquet"
