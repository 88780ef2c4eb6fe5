"""Fault points: each step of a commit at which a kill leaves something else on the disk.

They are the names that `storage.crashes.crash_point` is called with, for `MAGICSEG_CRASH_AT`.
Whether the next lookup finds the work done stands behind each.
"""

__all__ = ["FIRST_COMMIT", "PIECE", "REPLACEMENT", "RUN", "kind_of"]

FIRST_COMMIT = {
    "temp:.engine/leases/shards/*": False,
    "named:.engine/leases/shards/*": False,
    "temp:.engine/intents/*": False,
    "named:.engine/intents/*": False,
    "temp:data/*": False,
    "named:data/*": False,
    "temp:.engine/manifests/*": False,
    "named:.engine/manifests/*": True,
    "temp:.engine/commits/*": True,
    "named:.engine/commits/*": True,
    "deleted:.engine/intents/*": True,
}
"""Of a shard that was not there before."""

REPLACEMENT = {
    "named:.engine/intents/*": False,
    "moved:.engine/commits/*": False,
    "temp:data/*": False,
    "moved:data/*": False,
    "named:data/*": False,
    "moved:.engine/manifests/*": False,
    "named:.engine/manifests/*": True,
    "temp:.engine/commits/*": True,
    "named:.engine/commits/*": True,
}
"""Of a shard that replaces an older version of itself."""

PIECE = {
    "temp:.engine/leases/*": False,
    "named:.engine/leases/*": False,
    "temp:.engine/intents/*": False,
    "named:.engine/intents/*": False,
    "temp:.engine/objects/*": False,
    "named:.engine/objects/*": True,
    "temp:.engine/commits/*": True,
    "named:.engine/commits/*": True,
    "deleted:.engine/intents/*": True,
}
"""Of a piece."""

RUN = (
    "temp:.engine/spec.json",
    "named:.engine/spec.json",
    "temp:.engine/spec.copy.json",
    "named:.engine/spec.copy.json",
    "named:.engine/leases/claims/*",
    "temp:README.md",
    "named:README.md",
)
"""Of a run, before its first commit and after its last one."""


def kind_of(step: str) -> str:
    """What happened, and to what: ``named:data``, ``temp:.engine/intents``, ``named:README.md``."""
    what, _, path = step.partition(":")
    parts = path.split("/")
    return f"{what}:{'/'.join(parts[:2]) if parts[0] == '.engine' else parts[0]}"
