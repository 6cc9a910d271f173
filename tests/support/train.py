"""Small workspaces made the obvious way, and runs of `duckling-train` on them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.support import forked, seed_cells
from tests.support import reference_pipeline as reference

LIVE, DEAD, CONTEXT, GROUP = 6144, 2048, 512, 10_000


STEPS = 30


GPT2_IDS = 50257


def sentences(count: int) -> list[str]:
    """Return `count` generated stories of a few hundred different words: fixed, and easy to learn from."""
    rng = random.Random(7)
    starts = ["ba", "chi", "do", "fle", "gra", "ki", "lo", "mu", "pe", "sto"]
    middles = ["bble", "dder", "ffin", "lly", "mmer", "nket", "pple", "rrow", "sty", "zzle"]
    names = [(start + middle).capitalize() for start in starts for middle in middles]
    verbs = ["saw", "found", "liked", "lost", "made", "wanted", "gave", "took", "hid", "drew"]
    things = ["ball", "cake", "dog", "hat", "kite", "moon", "river", "stone", "tree", "boat"]
    colours = ["red", "blue", "green", "yellow", "old", "new", "big", "tiny", "soft", "loud"]

    def sentence() -> str:
        number = rng.randint(2, 400)
        return f"{rng.choice(names)} {rng.choice(verbs)} {number} {rng.choice(colours)} {rng.choice(things)}s."

    return [" ".join(sentence() for _ in range(rng.randint(5, 60))) for _ in range(count)]


def make_workspace(
    workspace: Path, stories: list[str], *, live: int = LIVE, dead: int = DEAD, context: int = CONTEXT
) -> Path:
    """Write `token_mapping.json` and `tokenized_dataset/` from stories, counted in their order. Returns `workspace`."""
    import numpy as np
    from datasets import Dataset
    from transformers import GPT2TokenizerFast

    workspace.mkdir(parents=True, exist_ok=True)
    seed_cells.put_gpt2_files(workspace)
    tokenizer = GPT2TokenizerFast.from_pretrained(str(workspace / "gpt2"))
    counts = reference.count(tokenizer, Dataset.from_dict({"text": stories}), None, seed=42)
    counts.update(dict.fromkeys(range(GPT2_IDS), 0))  # a live id needs a token, even one that never occurs
    mapping = reference.build_mapping(counts, live, dead)
    (workspace / "token_mapping.json").write_bytes(reference.mapping_bytes(mapping))
    rows = reference.pack(tokenizer, stories, mapping, context, GROUP)
    features = reference.features(context)
    dataset = Dataset.from_dict({"input_ids": np.array(rows, dtype=np.uint16)}, features=features)
    dataset.save_to_disk(str(workspace / "tokenized_dataset"))
    return workspace


@dataclass(frozen=True)
class Ran:
    """A finished `duckling-train` process."""

    run_dir: Path
    status: int
    stdout: str
    stderr: str

    def json(self, name: str) -> Any:
        return json.loads((self.run_dir / name).read_text())

    @property
    def metrics(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.run_dir / "metrics.jsonl").read_text().splitlines()]


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of `duckling-train` with `arguments`, under this interpreter."""
    return [sys.executable, "-c", "from duckling_train.cli import main; main()", *map(str, arguments)]


def command_here(*arguments: str | Path) -> int:
    """Run `duckling-train` with `arguments` in this process. Returns its exit status."""
    from duckling_train.cli import main

    try:
        main([*map(str, arguments)])
    except SystemExit as ended:
        return int(ended.code or 0)


def environment() -> dict[str, str]:
    """Return the environment of a child with as many threads as this process: threads split sums, and so bits."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}


def duckling_train(run_dir: Path, *arguments: str | Path) -> Ran:
    """Run `duckling-train --out run_dir arguments` in a process of its own, forked from one that has imported it."""
    with tempfile.TemporaryDirectory() as folder:
        ran = forked.run("duckling_train.cli", "--out", run_dir, *arguments, output=Path(folder) / "said")
        assert ran.process.exitcode is not None
        return Ran(run_dir, ran.process.exitcode, ran.stdout, ran.stderr)


def status_of(*arguments: str | Path) -> int:
    """Call `duckling-train` with `arguments` in this process. Returns its exit status."""
    from duckling_train.cli import main

    try:
        main([*map(str, arguments)])
    except SystemExit as ended:
        return int(ended.code or 0)
    raise AssertionError("the command has not ended")


def from_the_shell(run_dir: Path, *arguments: str | Path) -> Ran:
    """Run the same as a user does: in a process that imports all by itself."""
    done = subprocess.run(
        command("--out", run_dir, *arguments), capture_output=True, text=True, env=environment(), check=False
    )
    return Ran(run_dir, done.returncode, done.stdout, done.stderr)


FP32 = ("--precision", "fp32")
"""The precision of what trains and is not about bf16, which many processors only emulate, several times as slow."""


TINY_SHAPE = (
    *("--ctx", "64", "--vocab-size", "512", "--width", "16", "--device", "cpu", "--threads", "1"), *FP32
)  # fmt: skip
"""The flags of a model whose step takes milliseconds, for `tiny_workspace`; a `--precision` after them counts."""


def with_validation(workspace: Path, copy: Path) -> Path:
    """Make `copy` a workspace of the same files, whose training rows are its validation rows, too. Returns `copy`."""
    copy.mkdir(parents=True, exist_ok=True)
    for name in ("token_mapping.json", "tokenized_dataset"):
        (copy / name).symlink_to(workspace / name)
    (copy / "tokenized_validation").symlink_to(workspace / "tokenized_dataset")
    return copy
