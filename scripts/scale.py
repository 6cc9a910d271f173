"""Measures every stage of the pipeline over sizes of a corpus, done locally, on Ray, and in shards as Slurm's tasks.

Demo stories are written as Parquet files, 529,930 in each, into --folder, once. For each way and size every stage runs
as a process of its own in a fresh workspace: `count --sample all`, `build-vocab`, `pack --ctx 512`, and, locally,
`report`. What is measured goes to FOLDER/scale.json after each run; a run that is there is not made again, so parts can
be measured one by one (--only, --sizes) and drawn later (--draw). Digests of rows, mapping and counts are compared:
exit status 1 where two ways differ. Linux only.

Ways: `local`; `again`, the same with --no-keep-tokens, so that `pack` reads and encodes the stories again, as all ways
below do; `ray1`, `ray2`, `ray4`: a cluster of so many raylets on this machine, each with an equal part of its
cores, at least one; it is started before the commands and its start is told apart; `shards7`: seven tasks for `count`
and for `pack`, one after another, as an array job has them side by side.

Time is the commands' by the clock, start-up included; over several --rounds, the median. Memory is the process's
largest resident size (VmHWM). Of a cluster it is the largest sum, at a look every 0.1 s, of the resident sizes (VmRSS)
of all its processes (raylets, workers, agents, global control store); pages that several share count for each.
Temporary disk is the largest size of the workspace's files together, at such looks, less that of the artifacts in the
end: kept tokens, shards, and files without a name that the command has open there count. Growth: the start-up is where
the line through the two smallest sizes has no story; above it the time a story is compared from 1/16 of TinyStories to
10 times that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from duckling_data.base.executor import default_workers  # noqa: E402
from duckling_data.base.strict_json import read_json  # noqa: E402
from tests.support.machine import processor  # noqa: E402
from tests.support.scale_figures import AGAIN, FULL, LOCAL, RAY, SHARDS, Run, Step, plot, tables  # noqa: E402
from tests.support.watched import watched  # noqa: E402

WAYS = (LOCAL, AGAIN, "ray1", "ray2", "ray4", "shards7")
PER_FILE = FULL // 4 + 1
"""Stories in a file, as in the published TinyStories."""
ROW_GROUP = 1000
BLOCK = 8000
TEXT_BYTES = b"text_bytes"
"""The key of the text's size in a file's metadata."""


def progress(line: str) -> None:
    """Say on standard error how far it is."""
    print(line, file=sys.stderr, flush=True)


def sizes(base: int, largest: int) -> list[int]:
    """Return `base`, 4 times that, and so on, TinyStories' size in place of the one nearest to it, and `largest`."""
    found, size = [], base
    while size < min(FULL, largest) * 0.5:
        found.append(size)
        size *= 4
    return [*found, *([FULL] if largest > FULL else []), largest]


def corpus(folder: Path, stories: int) -> tuple[Path, int]:
    """Return a folder with so many demo stories as Parquet, written unless it is there, and the bytes of their text."""
    import pyarrow.parquet as pq

    place = folder / f"stories-{stories}"
    if not place.exists():
        progress(f"making {stories:,} stories")
        partial = Path(tempfile.mkdtemp(dir=folder, prefix="making-"))
        for number, first in enumerate(range(0, stories, PER_FILE)):
            write_stories(partial / f"part-{number:05d}.parquet", first, min(first + PER_FILE, stories))
        partial.rename(place)
    files = sorted(place.glob("*.parquet"))
    return place, sum(int(pq.read_metadata(file).metadata[TEXT_BYTES]) for file in files)


def write_stories(path: Path, first: int, stop: int) -> None:
    """Write the demo stories of a range as one Parquet file."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from duckling_data.corpus.demo import demo_stories

    total = 0
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for start in range(first, stop, BLOCK):
            texts = demo_stories(start, min(start + BLOCK, stop)).cast(pa.string())
            total += pc.sum(pc.binary_length(texts)).as_py()
            writer.write_table(pa.table({"text": texts}), row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({TEXT_BYTES: str(total)})


def steps(way: str, source: Path, live: int, address: str) -> Iterator[tuple[str, bool, list[str]]]:
    """Yield each command of a way: its stage, whether it is one of an array's tasks, and its words."""
    sample, build = ["--sample", "all"], ["--sample", "all", "--live", str(live)]
    if way.startswith(SHARDS):
        count = int(way.removeprefix(SHARDS))
        yield "count", False, ["download", "--source", str(source)]
        for stage, options in (("count", sample), ("pack", ["--ctx", "512"])):
            for number in range(count):
                yield stage, True, [stage, "--shard", f"{number}/{count}", *options]
            yield stage, False, ["merge", stage]
            if stage == "count":
                yield "build-vocab", False, ["build-vocab", *build]
        return
    on = ["--executor", "ray", "--ray-address", address] if way.startswith(RAY) else []
    on += ["--no-keep-tokens"] if way == AGAIN else []
    yield "count", False, ["count", "--source", str(source), *sample, *on]
    yield "build-vocab", False, ["build-vocab", *build, *on]
    yield "pack", False, ["pack", "--ctx", "512", *on]
    if way == LOCAL:
        yield "report", False, ["report"]


def measured(folder: Path, way: str, stories: int, live: int, address: str, start: float) -> Run:
    """Run all stages in a fresh workspace. Returns what they took and the digests of what they made."""
    source, text_bytes = corpus(folder, stories)
    subprocess.run(["sync"], check=True)  # what was written before is not written beside the measurement
    workspace = Path(tempfile.mkdtemp(dir=folder, prefix="workspace-"))
    try:
        done = []
        for stage, array, words in steps(way, source, live, address):
            command = [sys.executable, "-m", "duckling_data", *words, "-w", str(workspace), "--quiet"]
            done.append(Step(stage, array, **asdict(watched(command, workspace))))
        stages = read_json(workspace / "manifest.json")["stages"]
    finally:
        shutil.rmtree(workspace)
    digests = {
        "counts": stages["count"]["figures"]["counts_sha256"],
        "mapping": stages["build-vocab"]["outputs"]["token_mapping.json"]["sha256"],
        "rows": stages["pack"]["figures"]["splits"]["train"]["payload_sha256"],
    }
    return Run(way, stories, text_bytes, start, done, digests)


@contextlib.contextmanager
def cluster(way: str) -> Iterator[tuple[str, float]]:
    """Yield the address of the cluster that the way needs, none where it needs none, and the seconds of its start."""
    if not way.startswith(RAY):
        yield "", 0.0
        return
    from tests.support.ray_cluster import nodes

    count, began = int(way.removeprefix(RAY)), time.perf_counter()
    with nodes(count, cpus=max(1, default_workers() // count)) as running:
        yield running.address, time.perf_counter() - began


class Results:
    """The file of all runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.machine = f"{processor()}, {default_workers()} cores"
        self.runs: list[Run] = []
        if path.exists():
            found = read_json(path)
            self.runs = [Run(**run | {"steps": [Step(**step) for step in run["steps"]]}) for run in found["runs"]]
            if found["machine"] != self.machine:
                sys.exit(f"{path}: measured on {found['machine']}, this is {self.machine}; use another --folder.")

    def lacks(self, way: str, stories: int, rounds: int) -> bool:
        """Return whether fewer than so many runs are there."""
        return sum((run.way, run.stories) == (way, stories) for run in self.runs) < rounds

    def add(self, run: Run) -> None:
        """Keep a run. Exits where another way made something else of as many stories."""
        for other in self.runs:
            if other.stories == run.stories and other.digests != run.digests:
                sys.exit(f"{run.stories:,} stories: {run.way} made {run.digests}, {other.way} {other.digests}.")
        self.runs.append(run)
        content = {"machine": self.machine, "runs": [asdict(each) for each in self.runs]}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(self._path)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--folder", type=Path, default=Path("scale"), help="for corpora, workspaces, results (default: %(default)s)")
    add("--base", type=int, default=FULL // 256, help="stories of the smallest corpus (default: %(default)s)")
    add("--largest", type=int, default=10 * FULL, help="stories of the largest one (default: %(default)s)")
    add("--sizes", metavar="N,N,...", help="these numbers of stories instead")
    add("--only", metavar="WAY,...", default=",".join(WAYS), help="default: %(default)s; other numbers are possible")
    add("--rounds", type=int, default=1, help="runs of each way and size, in all (default: %(default)s)")
    add("--live", type=int, default=6144, help="live ids; fewer for tiny sizes (default: %(default)s)")
    add("--draw", action="store_true", help="measure nothing, only write the tables and the plot")
    add("--plot", type=Path, help="where the plot goes (default: FOLDER/scale.png)")
    options = parser.parse_args(arguments)
    options.sizes = [int(size) for size in options.sizes.split(",")] if options.sizes else None
    options.sizes = options.sizes or sizes(options.base, options.largest)
    options.only = options.only.split(",")
    for way in options.only:
        count = way.removeprefix(RAY).removeprefix(SHARDS)
        if way not in (LOCAL, AGAIN) and (count == way or not count.isdecimal() or int(count) < 1):
            parser.error(f"--only {way}: expected local, again, ray1, ray2, ..., shards1, shards2, ...")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, then write the tables and the plot."""
    options = parsed(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder / "scale.json")
    for way in () if options.draw else options.only:
        todo = [size for size in options.sizes for _ in range(options.rounds)]
        if not any(results.lacks(way, size, options.rounds) for size in todo):
            continue
        with cluster(way) as (address, start):
            for stories in todo:
                if results.lacks(way, stories, options.rounds):
                    run = measured(folder, way, stories, options.live, address, start)
                    results.add(run)
                    total = sum(step.seconds for step in run.steps)
                    progress(f"{way}, {stories:,} stories, {run.text_bytes / 1e6:,.0f} MB: {total:,.1f} s")
    shown = tables(results.runs)
    (folder / "scale.md").write_text(f"{results.machine}\n\n{shown}")
    (options.plot or folder / "scale.png").write_bytes(plot(results.runs, results.machine))
    print(f"{results.machine}\n\n{shown}", end="")


if __name__ == "__main__":
    main()
