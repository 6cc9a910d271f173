"""Times the whole pipeline, from a Parquet file of stories to the packed dataset, beside the obvious way.

The pipeline is timed as one command (`pack`) and as two (`build-vocab`, then `pack --ctx 512`), each in an empty
workspace, in turn with the obvious way; both count all stories (--sample all) and pack all. Ours is timed as whole
processes, start-up included; the obvious way (tests/support/reference_pipeline.py: transformers' batched calls,
Counter, datasets) without its imports, on fewer stories, since it is slow. A ratio is the median of the rounds' ratios.
Then each part of our pipeline is timed alone in one thread. The bound that the whole can be held against is the sum of
the parts, spread evenly over the cores, and the start-up: a command's time on 1,000 stories.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BLOCK = 8192
ROW_GROUP = 1000
"""Rows in a row group, as in the published TinyStories files."""
TINY = 1000
"""Stories whose time is that of starting, about."""
COMMANDS = {
    "one": (("pack", "--sample", "all"),),
    "two": (("build-vocab", "--sample", "all"), ("pack", "--ctx", "512")),
}
"""The commands that make the rows, the second of two from what the first has left."""
ONLY_TWO = ("hash again",)
"""What two commands do besides."""
CAPABILITIES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_tile": "AMX"}
"""Of the processor, by the names of its flags."""


FILES = 4
"""Files of the stories that the pipeline is timed on, as TinyStories has: they are hashed side by side."""


def write_stories(path: Path, stories: int, first: int = 0) -> int:
    """Write a Parquet file of demo stories, from the `first` on. Returns the bytes of text in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from duckling_data.corpus.demo import demo_stories

    total = 0
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for start in range(first, first + stories, BLOCK):
            texts = demo_stories(start, min(start + BLOCK, first + stories))
            total += len(texts.buffers()[2])
            writer.write_table(pa.table({"text": texts.cast(pa.string())}), row_group_size=ROW_GROUP)
    return total


@dataclass(frozen=True)
class Cost:
    """What a process, or several one after the other, took: seconds, those of all threads (user and system), and MB."""

    wall: float
    cpu: float
    peak: float


def timed_process(arguments: list[str]) -> tuple[Cost, str]:
    """Run a command. Returns what it took and what it printed."""
    # Modules are compiled once, as in an installation.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    printed = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"failed: {' '.join(arguments)}")
    peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak), printed


def run_ours(parquet: Path, kind: str) -> list[Cost]:
    """Run one of COMMANDS in an empty workspace. Returns what each command took."""
    with tempfile.TemporaryDirectory(dir=parquet.parent) as out:
        where = ["-w", out, "--source", str(parquet), "--quiet"]
        commands = ([sys.executable, "-m", "duckling_data", *command, *where] for command in COMMANDS[kind])
        return [timed_process(command)[0] for command in commands]


def run_obvious(parquet: Path) -> Cost:
    """Run the obvious way. Returns what it took without imports; the peak is of all."""
    with tempfile.TemporaryDirectory(dir=parquet.parent) as out:
        cost, printed = timed_process([sys.executable, __file__, "--obvious-child", str(parquet), out])
    wall, cpu = map(float, printed.split()[-2:])
    return Cost(wall, cpu, cost.peak)


def obvious_child(parquet: str, out: str) -> None:
    """Run the obvious way here and print its seconds, on the clock and of the processor."""
    sys.path.insert(0, str(ROOT))
    import datasets
    from transformers import GPT2TokenizerFast  # noqa: F401  # imported here, so that the clock does not see it

    from duckling_data.base.gpt2_files import gpt2_folder
    from tests.support import reference_pipeline

    datasets.disable_progress_bars()
    began, cpu = time.perf_counter(), time.process_time()
    reference_pipeline.build(Path(parquet), Path(out), gpt2_folder(), sample=None)
    print(time.perf_counter() - began, time.process_time() - cpu)


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
    import google_crc32c
    import numpy as np

    from duckling_data.base.files import sha256_file
    from duckling_data.corpus.readers import ReadOptions, read_blocks
    from duckling_data.rows.cut import RowPacker
    from duckling_data.rows.write import RowWriter
    from duckling_data.stages.count import CountSettings, sample_positions
    from duckling_data.stages.tally import Tally, tally_batch
    from duckling_data.stages.vocab import VocabSettings, build_mapping
    from duckling_data.tokens.compact import CompactTable
    from duckling_data.tokens.encoders import load_encoder
    from duckling_data.tokens.encoding import EncodedBatch
    from duckling_data.tokens.gpt2 import GPT2
    from duckling_data.tokens.kept import KeptTokens

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

    def keep() -> KeptTokens:
        kept = KeptTokens(parquet.parent, GPT2.vocab_size, [], named=False)
        for batch in batches:
            data = batch.to_bytes()
            google_crc32c.value(data)
            kept.append(batch, data)
        return kept

    def cut_and_write() -> None:
        packer = RowPacker(512, 10_000)
        with tempfile.TemporaryDirectory(dir=parquet.parent) as out, RowWriter(Path(out) / "d", 512, "train") as writer:
            for part in compacted:
                writer.write(packer.add(part.tokens, part.lengths))

    kept = keep()
    parts: dict[str, Callable[[], object]] = {
        "hash the source": lambda: sha256_file(parquet),
        "read Parquet": lambda: [block.parse() for block in read_blocks(parquet, ReadOptions())],
        "encode": lambda: [encoder.encode_batch(part) for part in texts],
        "count": lambda: [tally_batch(batch, places, earliest) for batch in batches],
        "keep tokens": keep,
        "read kept tokens": lambda: [kept.read(index) for index in range(len(kept))],
        "map to compact ids": lambda: [table.compact(batch.tokens, batch.lengths) for batch in batches],
        "cut, hash, write": cut_and_write,
        "hash again": lambda: sha256_file(parquet),
    }
    return {name: median_seconds(work) / megabytes * 1e3 for name, work in parts.items()}


def processor() -> str:
    """Return the processor's model and which of CAPABILITIES it has, as far as the system says."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    lines = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in told.splitlines())}
    flags = {*lines.get("flags", "").split()}
    able = ", ".join(shown for flag, shown in CAPABILITIES.items() if flag in flags)
    return f"{lines.get('model name', platform.machine())} ({able or 'none of ' + ', '.join(CAPABILITIES.values())})"


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--stories", type=int, default=1_000_000, help="demo stories for our pipeline")
    parser.add_argument("--obvious-stories", type=int, default=10_000, help="demo stories for the obvious way")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each")
    parser.add_argument("--commands", choices=[*COMMANDS, "both"], default="both", help="one, two, or both ways")
    parser.add_argument("--obvious-child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.obvious_child:
        obvious_child(*options.obvious_child)
        return
    kinds = [*COMMANDS] if options.commands == "both" else [options.commands]
    with tempfile.TemporaryDirectory() as folder:
        large, small, part, tiny = (Path(folder) / name for name in ("large", "s.parquet", "p.parquet", "t.parquet"))
        print("making stories ...", flush=True)
        sizes = ((small, options.obvious_stories), (part, 100_000), (tiny, TINY))
        small_mb, part_mb, _ = (write_stories(path, stories) / 1e6 for path, stories in sizes)
        large.mkdir()
        each = -(-options.stories // FILES)
        firsts = enumerate(range(0, options.stories, each))
        large_mb = sum(write_stories(large / f"{number}.parquet", each, first) / 1e6 for number, first in firsts)
        run_ours(tiny, "one")  # what is imported is compiled, and in the system's memory
        start_up = {kind: [run_ours(tiny, kind) for _ in range(options.rounds)] for kind in kinds}
        rounds: list[dict[str, list[Cost]]] = []
        for number in range(options.rounds):
            order = [*kinds, "obvious"][:: 1 if number % 2 else -1]
            costs = {k: [run_obvious(small)] if k == "obvious" else run_ours(large, k) for k in order}
            rounds.append(costs)
            shown = (f"{k} {(small_mb if k == 'obvious' else large_mb) / wall(costs[k]):.4g}" for k in sorted(costs))
            print(f"round {number + 1}, MB/s: {', '.join(shown)}", flush=True)
        parts = time_parts(part, part_mb)
    figures = {kind: measured(kind, rounds, start_up[kind], large_mb, small_mb, parts) for kind in kinds}
    print(table(figures, parts, large_mb, small_mb))
    facts: dict[str, Any] = {"processor": processor(), "python": platform.python_version(), "text_mb": round(large_mb)}
    print(json.dumps(facts | figures))


def wall(costs: list[Cost]) -> float:
    """Return the seconds of some processes together."""
    return sum(cost.wall for cost in costs)


def cpu(costs: list[Cost]) -> float:
    """Return the processor seconds of some processes together."""
    return sum(cost.cpu for cost in costs)


def measured(
    kind: str, rounds: list[dict[str, list[Cost]]], start_up: list[list[Cost]], large_mb: float, small_mb: float,
    parts: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of one of COMMANDS: medians over the rounds, in MB, seconds and MB/s."""
    median, scale = statistics.median, large_mb / small_mb
    ours, obvious = [costs[kind] for costs in rounds], [costs["obvious"] for costs in rounds]
    own = sum(seconds for name, seconds in parts.items() if kind == "two" or name not in ONLY_TWO) * large_mb / 1e3
    started = median(map(wall, start_up))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    speed, bound = large_mb / median(map(wall, ours)), large_mb / (own / cores + started)
    obvious_speed = small_mb / median(map(wall, obvious))
    return {
        "mb_per_s": round(speed, 1),
        "obvious_mb_per_s": round(obvious_speed, 2),
        "ratio": round(median(wall(them) * scale / wall(us) for us, them in zip(ours, obvious, strict=True)), 1),
        "ratio_cpu": round(median(cpu(them) * scale / cpu(us) for us, them in zip(ours, obvious, strict=True)), 1),
        "seconds": [round(median(costs), 2) for costs in zip(*([c.wall for c in run] for run in ours), strict=True)],
        "cpu_seconds": [round(median(costs), 2) for costs in zip(*([c.cpu for c in run] for run in ours), strict=True)],
        "start_up_s": round(started, 2),
        "start_up_cpu_s": round(median(map(cpu, start_up)), 2),
        "cores": cores,
        "bound_mb_per_s": round(bound, 1),
        "bound_ratio": round(bound / obvious_speed, 1),
        "bound_without_start_up_mb_per_s": round(large_mb * cores / own, 1),
        "reached": round(speed / bound, 2),
        "peak_mb": round(max(cost.peak for run in ours for cost in run)),
        "obvious_peak_mb": round(max(cost.peak for run in obvious for cost in run)),
    }


def table(figures: dict[str, dict[str, Any]], parts: dict[str, float], large_mb: float, small_mb: float) -> str:
    """Return the figures for a person: a column for each of COMMANDS that was run."""
    names = next(iter(figures.values()))
    lines = [processor(), f"text: {large_mb:.0f} MB, {small_mb:.1f} MB for the obvious way", ""]
    lines.append(f"{'commands':34}" + "".join(f"{kind:>16}" for kind in figures))
    for name in names:
        values = (made[name] for made in figures.values())
        shown = (" + ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values)
        lines.append(f"{name:34}" + "".join(f"{value:>16}" for value in shown))
    lines += ["", "one thread, alone: seconds for a GB of text"]
    lines += [f"  {name:22}{value:>10.2f}" + "  (two commands)" * (name in ONLY_TWO) for name, value in parts.items()]
    return "\n".join([*lines, f"  {'sum':22}{sum(parts.values()):>10.2f}"])


if __name__ == "__main__":
    main()
