"""Which of the processes that share a run this one is: what torchrun says in the environment, else the only one.

    torchrun --nproc-per-node 2 -m duckling_train --steps 10000

n processes share each batch of b rows (`--batch-size` is the whole batch): process r takes the r-th of n equal parts of
the rows that one process alone would take in that step, in its order. The gradient is the mean over all of them, so the
losses are those of one process up to rounding. One thing differs: the last batch of an epoch, where fewer than b rows
are left, is filled up with the epoch's first rows, since each process must have some. The first process writes and
prints; the others end silently.
"""

from __future__ import annotations

import atexit
import os
import sys

from duckling_data.base.errors import InputError


def process_count() -> int:
    """Return how many processes share each batch. Raises InputError where the environment holds no number."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or text == "0":
        raise InputError(f"WORLD_SIZE is {text!r} in the environment; torchrun sets it to a number: unset it")
    return int(text)


def is_main_process() -> bool:
    """Whether this process is the one that writes and prints. Schedulers set a rank for single processes, too."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def process_rank() -> int:
    """Return this process's number among those that share each batch, from 0."""
    return 0 if os.environ.get("WORLD_SIZE", "1") == "1" else int(os.environ.get("RANK", "0"))


def exit_of_several(status: int) -> None:
    """Exit without finalizing the interpreter where several processes share a run; elsewhere do nothing.

    A thread of gloo that still frees a tensor aborts the finalization (pytorch #179291); if the process group is
    destroyed before it, that thread and this one can deadlock. Functions of `atexit` are called.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        atexit._run_exitfuncs()
        print(end="", flush=True)
        os._exit(status)
