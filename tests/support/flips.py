"""Every bit of a workspace's and a run's records flipped, one at a time, and what `verify` makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from duckling_data.base.errors import CheckFailed
from duckling_data.base.progress import Reporter
from duckling_data.pipeline import Pipeline, Request
from duckling_data.stages import NAMES
from duckling_data.verify import VerifyRequest, verify_workspace
from tests.support.train import TINY_SHAPE, duckling_train

WORKSPACE_RECORDS = ("manifest.json", "SHA256SUMS", "corpus/source.json", "tokenized_dataset/state.json",
                     "tokenized_dataset/dataset_info.json", "token_mapping.json")  # fmt: skip
RUN_RECORDS = ("manifest.json", "config.json", "summary.json", "metrics.jsonl", "evaluation.jsonl", "dynamics.jsonl",
               "checkpoints/step-00000001/checkpoint.json", "model/config.json", "model/tokenizer_config.json",
               "model/generation_config.json")  # fmt: skip

Target = tuple[Path, tuple[str, ...], Callable[[Path], None]]
"""A folder, the names of its records, and what verifies it."""


def make_workspace(workspace: Path) -> Path:
    """Make a workspace of a few stories with everything in it: validation rows, the report, the sums."""
    settings = {"sample": "all", "live": 60, "dead": 4, "ctx": 16}
    Pipeline(Request(workspace, 1, ("demo:6",), settings=settings), Reporter(quiet=True)).make(*NAMES)
    return workspace


def make_run(run_dir: Path, workspace: Path) -> Path:
    """Train one step in the workspace, and keep its checkpoint."""
    shape = (*TINY_SHAPE, "--ctx", "16", "--vocab-size", "64", "--width", "4", "--layers", "1", "--heads", "1")
    steps = ("--steps", "1", "--checkpoint-steps", "1", "--keep-checkpoints", "--eval-steps", "1", "--quiet")
    done = duckling_train(run_dir, "-w", workspace, *shape, *steps)
    assert done.status == 0, done.stderr
    return run_dir


def unfinished(run_dir: Path, copy: Path) -> Path:
    """Return a copy of the run as it was before its end: its files are known by no manifest."""
    shutil.copytree(run_dir, copy)
    for name in ("manifest.json", "summary.json"):
        (copy / name).unlink()
    return copy


def verify_data(workspace: Path) -> None:
    """Verify a workspace in this process."""
    list(verify_workspace(VerifyRequest(workspace, 1, deep=True, encoder="gigatoken"), Reporter(quiet=True)))


def verify_run(run_dir: Path) -> None:
    """Verify a run in this process, without its data."""
    from duckling_train.runs.verify import verify_run

    list(verify_run(run_dir, run_dir))


def targets(folder: Path) -> dict[str, Target]:
    """Make a workspace, a finished run and an unfinished one in `folder`. Returns them by these kinds."""
    workspace = make_workspace(folder / "w")
    run = make_run(folder / "run", workspace)
    return {
        "workspace": (workspace, WORKSPACE_RECORDS, verify_data),
        "run": (run, RUN_RECORDS, verify_run),
        "unfinished": (unfinished(run, folder / "unfinished"), RUN_RECORDS, verify_run),
    }


def outcomes(root: Path, name: str, verify: Callable[[Path], None], bits: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Yield (kind, what was said) for each of these bits of a record that is flipped.

    `named`: CheckFailed names the record, or the manifest, which a damaged record is compared with. `other file`: it
    names another. `harmless`: nothing was found. Anything else is what a user would see as a traceback.
    """
    path = root / name
    content = path.read_bytes()
    try:
        for bit in bits:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            around = f"bit {bit}, {bytes(flipped[max(0, bit // 8 - 20) : bit // 8 + 20])!r}"
            try:
                verify(root)
                yield "harmless", around
            except CheckFailed as error:
                named = path.name in str(error) or "manifest.json" in str(error)
                yield "named" if named else "other file", f"{around}: {error}"
            except Exception as error:
                yield "traceback", f"{around}: {error!r}"
    finally:
        path.write_bytes(content)
