"""torchrun, with the exit code of the process that failed: `python -m training.torchrun ...`.

The original ends with 1 whatever happened, so that whoever started it cannot tell wrong input from
a crash. Arguments are the original's.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

_CRASHED = 1


def main(arguments: list[str] | None = None) -> int:
    """Run a program in several processes and return the exit code.

    Where several processes failed it is that of the first one that ended by itself: the others fail
    because it is gone, and torchrun ends them by a signal.
    """
    try:
        run(parse_args(sys.argv[1:] if arguments is None else arguments))
    except ChildFailedError as error:
        codes = [
            failure.exitcode
            for failure in sorted(error.failures.values(), key=lambda each: each.timestamp)
        ]
        said = [code for code in codes if code > _CRASHED]
        sys.stderr.write(f"{len(codes)} processes failed with the exit codes {codes}\n")
        return said[0] if said else _CRASHED
    return 0


if __name__ == "__main__":
    sys.exit(main())
