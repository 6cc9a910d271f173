"""The two commands that are disturbed, on forty stories, and the digests of what they make."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from duckling_data.corpus.demo import demo_stories
from tests.support.data import SMALL, snapshot
from tests.support.determinism.disturb import Disturbance, Ended, modes, run
from tests.support.train import FP32, with_validation

TRAINING = (
    *("--steps", "6", "--logging-steps", "2", "--eval-steps", "3", "--ctx", "32", "--vocab-size", "320"),
    *("--width", "16", "--device", "cpu", "--threads", "1", "--quiet", *FP32),
)


def story_files() -> dict[str, bytes]:
    """Forty stories in files of several kinds; their names, sorted, give the stories' order."""
    texts = demo_stories(0, 40).to_pylist()
    lines = ["".join(json.dumps({"text": text}) + "\n" for text in part).encode() for part in (texts[:9], texts[20:30])]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts[9:20]}), sink)
    return {
        **{
            "a.jsonl": lines[0],
            "b.parquet": sink.getvalue().to_pybytes(),
            "c/d.jsonl.gz": gzip.compress(lines[1], mtime=0),
        },
        "z.txt": "<|endoftext|>".join(texts[30:]).encode(),
    }


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files by name, in this order. Returns the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(place: Path, disturbance: Disturbance, command: str = "run") -> Ended:
    """Make the workspace `place/w` from the stories in `place/stories`."""
    workers = ("--workers", str(disturbance.workers))
    source = ("--source", place / "stories")
    ended = run("duckling-data", place, disturbance, command, "-w", place / "w", *source, *workers, *SMALL)
    assert (ended.status, ended.stdout) == (0, ""), ended.stderr
    return ended


def digests(workspace: Path) -> dict[str, str]:
    """The SHA-256 of every file of a workspace but the record of where its stories lie."""
    return {name: digest for name, digest in snapshot(workspace).items() if name != "corpus/source.json"}


def train(workspace: Path, place: Path, disturbance: Disturbance) -> Ended:
    """Train `place/run` on the workspace's rows, which are its validation rows, too."""
    arguments = ("-w", with_validation(workspace, place / "w"), "--out", place / "run")
    ended = run("duckling-train", place, disturbance, *arguments, *TRAINING)
    assert ended.status == 0, ended.stderr
    return ended


def run_digests(run_dir: Path) -> dict[str, str]:
    """The SHA-256 of every file of a run but its summary, the manifest without its line about it."""
    manifest = json.loads((run_dir / "manifest.json").read_bytes())
    del manifest["files"]["summary.json"]
    found = {name: digest for name, digest in snapshot(run_dir).items() if name != "summary.json"}
    return found | {"manifest.json": json.dumps(manifest)}


def modes_left_by(umask: int, folder: Path) -> dict[str, str]:
    """The modes of what is below the folder, if each file and directory has all that the user's mask leaves."""
    return {name: oct((0o777 if (folder / name).is_dir() else 0o666) & ~umask) for name in modes(folder)}
