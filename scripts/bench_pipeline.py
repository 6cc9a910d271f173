"""Times the whole pipeline, from a Parquet file of stories to the packed dataset, beside the obvious way.

The two run in turn, each in a fresh process, on demo stories, and both count all stories (--sample all) and pack all;
figures are medians over the rounds. Ours is timed as a whole process, start-up included; the obvious way
(tests/support/reference_pipeline.py: transformers' batched calls, Counter, datasets) without its imports, on fewer
stories, since it is slow. Then each part of our pipeline is timed alone in one thread: the
sum of the parts, spread evenly over the cores, is the bound that the whole can be held against.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = 8192
ROW_GROUP = 1000
"""Rows in a row group, as in the published TinyStories files."""


def write_stories(path: Path, stories: int) -> int:
    """Write a Parquet file of demo stories. Returns the bytes of text in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from duckling_data.corpus.demo import demo_stories

    total = 0
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for start in range(0, stories, BLOCK):
            texts = demo_stories(start, min(start + BLOCK, stories))
            total += len(texts.buffers()[2])
            writer.write_table(pa.table({"text": texts.cast(pa.string())}), row_group_size=ROW_GROUP)
    return total


def timed_process(arguments: list[str]) -> tuple[float, float, str]:
    """Run a command. Returns (wall seconds, peak resident MB, what it printed)."""
    began = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"failed: {' '.join(arguments)}")
    peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return seconds, peak, printed


def run_ours(parquet: Path) -> tuple[float, float]:
    """Run the pipeline in an empty workspace. Returns (seconds, peak MB) of the process."""
    with tempfile.TemporaryDirectory(dir=parquet.parent) as out:
        command = [sys.executable, "-m", "duckling_data", "pack", "-w", out, "--source", str(parquet), "--quiet"]
        command += ["--sample", "all"]
        seconds, peak, _ = timed_process(command)
    return seconds, peak


def run_obvious(parquet: Path) -> tuple[float, float]:
    """Run the obvious way. Returns (seconds without imports, peak MB)."""
    with tempfile.TemporaryDirectory(dir=parquet.parent) as out:
        command = [sys.executable, __file__, "--obvious-child", str(parquet), out]
        _, peak, printed = timed_process(command)
    return float(printed.split()[-1]), peak


def obvious_child(parquet: str, out: str) -> None:
    """Run the obvious way here and print its seconds."""
    sys.path.insert(0, str(ROOT))
    import datasets
    from transformers import GPT2TokenizerFast  # noqa: F401  # imported here, so that the clock does not see it

    from duckling_data.base.gpt2_files import gpt2_folder
    from tests.support import reference_pipeline

    datasets.disable_progress_bars()
    began = time.perf_counter()
    reference_pipeline.build(Path(parquet), Path(out), gpt2_folder(), sample=None)
    print(time.perf_counter() - began)


def median_seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """Return the median seconds of the work, in this thread."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def time_parts(parquet: Path, megabytes: float) -> dict[str, float]:
    """Return the seconds a GB of text of each part of the pipeline, alone in one thread."""
    import numpy as np

    from duckling_data.base.files import sha256_file
    from duckling_data.corpus.readers import ReadOptions, read_blocks
    from duckling_data.rows.cut import RowPacker
    from duckling_data.rows.write import RowWriter
    from duckling_data.stages.count import CountSettings, Tally, sample_positions, tally_batch
    from duckling_data.stages.vocab import VocabSettings, build_mapping
    from duckling_data.tokens.compact import CompactTable
    from duckling_data.tokens.encoders import load_encoder
    from duckling_data.tokens.encoding import EncodedBatch

    encoder = load_encoder()
    texts = [block.parse() for block in read_blocks(parquet, ReadOptions())]
    batches: list[EncodedBatch] = []
    first = 0
    for part in texts:
        encoded = encoder.encode_batch(part)
        batches.append(EncodedBatch(np.arange(first, first + len(part)), encoded.tokens, encoded.lengths, len(part), 0))
        first += len(part)
    places = sample_positions(first, CountSettings(sample=None))
    tally = Tally.zero()
    for batch in batches:
        tally.add(tally_batch(batch, places, tally.earliest()))
    earliest = tally.earliest()
    table = CompactTable.from_mapping(build_mapping(tally.counts(), VocabSettings()))
    compacted = [table.compact(batch.tokens, batch.lengths) for batch in batches]

    def cut_and_write() -> None:
        packer = RowPacker(512, 10_000)
        with tempfile.TemporaryDirectory(dir=parquet.parent) as out, RowWriter(Path(out) / "d", 512, "train") as writer:
            for part in compacted:
                writer.write(packer.add(part.tokens, part.lengths))

    parts: dict[str, Callable[[], object]] = {
        "hash the source": lambda: sha256_file(parquet),
        "read Parquet": lambda: [block.parse() for block in read_blocks(parquet, ReadOptions())],
        "encode": lambda: [encoder.encode_batch(part) for part in texts],
        "count": lambda: [tally_batch(batch, places, earliest) for batch in batches],
        "map to compact ids": lambda: [table.compact(batch.tokens, batch.lengths) for batch in batches],
        "cut, hash, write": cut_and_write,
    }
    return {name: median_seconds(work) / megabytes * 1e3 for name, work in parts.items()}


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--stories", type=int, default=1_000_000, help="demo stories for our pipeline")
    parser.add_argument("--obvious-stories", type=int, default=10_000, help="demo stories for the obvious way")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each")
    parser.add_argument("--obvious-child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.obvious_child:
        obvious_child(*options.obvious_child)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        large, small, part = (Path(folder) / f"{name}.parquet" for name in ("large", "small", "part"))
        print("making stories ...", flush=True)
        large_mb, small_mb = (
            write_stories(p, n) / 1e6 for p, n in ((large, options.stories), (small, options.obvious_stories))
        )
        part_mb = write_stories(part, 100_000) / 1e6
        ours, obvious = [], []
        for number in range(options.rounds):
            ours.append(run_ours(large))
            obvious.append(run_obvious(small))
            speeds = f"{large_mb / ours[-1][0]:.0f} and {small_mb / obvious[-1][0]:.2f} MB/s"
            print(f"round {number + 1}: {speeds}", flush=True)
        seconds = time_parts(part, part_mb)
    print(result(ours, obvious, large_mb, small_mb, seconds, cores))


def result(
    ours: list[tuple[float, float]],
    obvious: list[tuple[float, float]],
    large_mb: float,
    small_mb: float,
    parts: dict[str, float],
    cores: int,
) -> str:
    """Return the table for a person, and the same as one line of JSON."""
    our_speed = large_mb / statistics.median(seconds for seconds, _ in ours)
    obvious_speed = small_mb / statistics.median(seconds for seconds, _ in obvious)
    bound = cores * 1e3 / sum(parts.values())
    figures = {
        "machine": f"{platform.machine()}, {cores} cores",
        "python": platform.python_version(),
        "text_mb": round(large_mb),
        "ours_mb_per_s": round(our_speed),
        "obvious_mb_per_s": round(obvious_speed, 2),
        "ratio": round(our_speed / obvious_speed),
        "ours_peak_mb": round(max(peak for _, peak in ours)),
        "obvious_peak_mb": round(max(peak for _, peak in obvious)),
        "bound_mb_per_s": round(bound),
        "parts_s_per_gb": {name: round(value, 3) for name, value in parts.items()},
    }
    lines = [
        f"{'':24}{'ours':>10}{'obvious':>10}{'ratio':>8}",
        f"{'MB of text a second':24}{our_speed:>10.0f}{obvious_speed:>10.2f}{our_speed / obvious_speed:>8.0f}",
        f"{'peak memory, MB':24}{figures['ours_peak_mb']:>10}{figures['obvious_peak_mb']:>10}",
        f"{'text, MB':24}{large_mb:>10.0f}{small_mb:>10.0f}",
        "",
        "one thread, alone: seconds a GB of text",
        *(f"  {name:22}{value:>10.2f}" for name, value in parts.items()),
        f"  {'sum':22}{sum(parts.values()):>10.2f}",
        f"bound on {cores} cores: {bound:.0f} MB/s; reached {our_speed / bound:.0%} of it",
        json.dumps(figures),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
