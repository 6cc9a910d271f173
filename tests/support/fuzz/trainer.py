"""The trainer's readers that `fuzz_readers.py` fuzzes: their seed files, and the calls that read them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def read_settings(folder: Path, name: str) -> None:
    """Read a file of settings as `--config` does."""
    from duckling_train.settings import make_config

    make_config(file=folder / name)


def config() -> bytes:
    """Return a run's settings."""
    from duckling_train.config import TrainConfig

    inputs = {"dataset": {"payload_sha256": "ab", "rows": 3}, "mapping": {"sha256": "cd"}}
    return json.dumps({**TrainConfig().resolved(), "inputs": inputs}, indent=2).encode()


def run() -> dict[str, bytes]:
    """Return the records of a run, by file."""
    lines = [{"step": step, "loss": 9.0 / step, "learning_rate": 1e-4, "grad_norm": 1.5} for step in range(1, 9)]
    log = "".join(json.dumps(line) + "\n" for line in lines).encode()
    summary = {"parameters": 1510912, "steps_per_second": 7.5, "tokens_per_second": 3840, "device_name": "cpu"}
    dead = json.dumps({"step": 1, "centroid_norm": 0.1, "coherence": None, "isotropy": 0.5}).encode() + b"\n"
    files = {"config.json": config(), "metrics.jsonl": log, "evaluation.jsonl": log, "dynamics.jsonl": dead}
    files["summary.json"] = json.dumps(summary).encode()
    files["manifest.json"] = json.dumps({"format": 1, "files": described(files)}).encode()
    return {f"run/{name}": content for name, content in files.items()}


def described(files: dict[str, bytes]) -> dict[str, Any]:
    """Return the size and SHA-256 of each file."""
    return {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}


def read_run(folder: Path, name: str) -> None:
    """Read a run's records, and show them as `compare` does."""
    from duckling_train.compare.table import table
    from duckling_train.runs.read import read_run, same_data

    manifest = folder / "run" / "manifest.json"
    if name != "run/manifest.json":  # who mangles a file mangles its digest, too: else all ends there
        files = {path.name: path.read_bytes() for path in manifest.parent.iterdir() if path != manifest}
        manifest.write_text(json.dumps({"format": 1, "files": described(files)}))
    record = read_run(folder / "run")
    same_data([record, record])
    table([record, record])


def checkpoint() -> dict[str, bytes]:
    """Return a checkpoint's files."""
    from duckling_train.config import TrainConfig
    from duckling_train.runs.checkpoint import Checkpoints

    files = {
        **{"weights.safetensors": b"w" * 99, "optimizer.safetensors": b"o" * 99, "metrics.jsonl": b""},
        "trainer_state.json": b'{"global_step": 10, "max_steps": 100}',
    }
    groups = [{"lr": 1e-4, "betas": [0.9, 0.999]}]
    state = {"running_loss": 1.5, "last_logged": 10, "seconds": 2.5, "groups": groups, "schedule": {"last_epoch": 10}}
    identity = Checkpoints(Path(), TrainConfig(), {}).identity
    content = {"format": 1, "step": 10, **identity, "files": described(files), "state": state}
    files["checkpoint.json"] = signed(json.dumps(content).encode())
    return {f"checkpoints/step-00000010/{name}": content for name, content in files.items()}


def signed(record: bytes) -> bytes:
    """Return a checkpoint's record with its own digest, or as it is where it holds no object."""
    from duckling_data.base.strict_json import digest_json, parse_json

    try:
        content = parse_json(record)
    except ValueError:
        return record
    if not isinstance(content, dict):
        return record
    content.pop("record_sha256", None)
    return json.dumps({**content, "record_sha256": digest_json(content)}).encode()


def read_checkpoint(folder: Path, name: str) -> None:
    """Read a checkpoint whose own digest is right."""
    from duckling_train.config import TrainConfig
    from duckling_train.runs.checkpoint import Checkpoints

    if name.endswith("checkpoint.json"):
        (folder / name).write_bytes(signed((folder / name).read_bytes()))
    Checkpoints(folder, TrainConfig(), {}).newest()


def sweep() -> bytes:
    """Return a sweep's record."""
    from duckling_train.config import TrainConfig

    fixed = TrainConfig().resolved()
    swept = {"n_layer": [fixed.pop("n_layer"), 4], "steps": [fixed.pop("steps")]}
    return json.dumps({"format": 1, "swept": swept, "fixed": fixed, "inputs": {"dataset": {"rows": 3}}}).encode()


def read_sweep(folder: Path, name: str) -> None:
    """Read a sweep's record, and compare it with another's."""
    from duckling_data.base.records import decode
    from duckling_train.sweep.layout import SweepRecord, read_sweep, refusal

    reason = refusal(folder, read_sweep(folder), decode(json.loads(sweep()), SweepRecord, "seed", ""))
    if reason and ("\n" in reason or len(reason) > 1000):
        raise AssertionError(f"a reason of {len(reason)} characters, {len(reason.splitlines())} lines")


def record() -> dict[str, bytes]:
    """Return the files of a small record: float32, gradients, bf16 and both vectors."""
    import tempfile

    import numpy as np

    from duckling_train.recording.codec import LEVEL, LINE, ORDER
    from duckling_train.recording.layout import Layout
    from duckling_train.recording.writer import Writer

    codings = {"W": LINE, "grad_in": LEVEL, "exp_avg": ORDER}
    w = np.arange(20 * 3 * 2, dtype=np.float32).reshape(20, 3, 2) / 7
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "record"
        writer = Writer(place, Layout(1, "x", 1, 3, 2, "float32", codings, ["h_mean", "p_dead"], 16, 32))
        writer.create(np.arange(3), np.array([False, True, True]))
        for step, values in enumerate(w):
            halves = values.astype(np.float16).view(np.uint16)
            vectors = {"h_mean": values[0], "p_dead": values[:, 0]}
            writer.add(step, {"W": values, "grad_in": values, "exp_avg": halves, **vectors})
        writer.close()
        paths = [path for path in sorted(place.rglob("*")) if path.is_file()]
        read = [path for path in paths if path.name != "zarr.json" or path.parent == place]
        return {f"record/{path.relative_to(place).as_posix()}": path.read_bytes() for path in read}


def read_record(folder: Path, name: str) -> None:
    """Read all of a record."""
    from duckling_train.recording.chunks import summed
    from duckling_train.recording.record import Record

    path = folder / name
    content = path.read_bytes()
    if path.name != "zarr.json":  # who mangles a chunk mangles its sum, too: else all ends there
        if "residual" in name and len(content) >= 36:
            first, size = (int.from_bytes(content[at : at + 8], "little") for at in (-36, -28))
            end = min(first + size, len(content) - 36)
            content = content[:first] + summed(content[first:end][:-4]) + content[end:]
        path.write_bytes(summed(content[:-4]))
    record = Record.open(folder / "record")
    for tensor in record.tensors:
        _ = record[tensor][:]


def embedding() -> dict[str, bytes]:
    """Return a model's embedding with its index and tokenizer."""
    import torch
    from safetensors.torch import save

    name, file = "model.embed_tokens.weight", "part.safetensors"
    vocabulary = {token: number for number, token in enumerate(["<unk>", "a", "b", "ab", "\u2581", "qz"])}
    model = {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "vocab": vocabulary, "merges": [["a", "b"]]}
    added = {"id": 6, "content": "<pad>", "single_word": False, "lstrip": False, "rstrip": False}
    decoder = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    parts = {"pre_tokenizer": decoder, "decoder": decoder, "model": model}
    tokenizer = {"version": "1.0", "added_tokens": [added | {"normalized": False, "special": True}], **parts}
    return {
        file: save({name: torch.arange(40.0).reshape(8, 5).bfloat16(), "norm": torch.ones(5)}),
        "model.safetensors.index.json": json.dumps({"weight_map": {name: file, "norm": file}}).encode(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
    }


def read_embedding(folder: Path, name: str) -> None:
    """Inspect a model's embedding, and show it."""
    from duckling_train.embedding.figures import inspect
    from duckling_train.embedding.text import text_of

    text_of(inspect(folder), 3)
