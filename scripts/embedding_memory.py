"""Measures the peak memory and the time of `inspect-embedding` on a large bf16 matrix, 152k x 2,560, made for it.

    .venv/bin/python scripts/embedding_memory.py [--rows 151936] [--width 2560]

Ends with status 1 where the peak is above 4 GB. The file is made in a temporary folder, and needs 0.8 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT = 4e9
BLOCK = 4096
UNUSED = 267
"""Rows at the end that are nearly equal, as those of ids that training never saw."""


def write(path: Path, rows: int, width: int) -> None:
    """Write a safetensors file with one matrix of bf16, block by block."""
    entry = {"dtype": "BF16", "shape": [rows, width], "data_offsets": [0, 2 * rows * width]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    header += b" " * (-len(header) % 8)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for first in range(0, rows, BLOCK):
            values = rng.standard_normal((min(BLOCK, rows - first), width), np.float32) * np.float32(0.02)
            values[max(rows - UNUSED - first, 0) :] = np.float32(1e-3)
            file.write((values.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes())


def main() -> None:
    """Make the file, run the command on it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=2560)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write(path, sizes.rows, sizes.width)
        unused = f"{sizes.rows - UNUSED}:{sizes.rows - 50}"
        began = time.perf_counter()
        command = [sys.executable, "-m", "duckling_train", "inspect-embedding", str(path), "--unused", unused]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{sizes.rows:,} x {sizes.width:,} bf16: peak memory {peak / 1e9:.2f} GB, {seconds:.0f} s")
    sys.exit(peak > LIMIT)


if __name__ == "__main__":
    main()
