"""Gives every reader of outside bytes files that atheris, guided by the lines that they reach, makes of the seeds.

    pip install -e '.[fuzz]'                                   # Linux and CPython 3.11 to 3.13
    python scripts/fuzz_atheris.py --runs 100000               # so many executions a reader; one table line each
    python scripts/fuzz_atheris.py --seconds 60 --only jsonl
    python scripts/fuzz_atheris.py --only jsonl --input FILE   # one execution again, with what it raises

The readers, their seeds and what counts as a finding are those of `fuzz_readers.py`, whose mutations take turns with
libFuzzer's. Each reader has a child process of its own, whose address space may grow by 1 GiB and whose every execution
may take 10 seconds. An input's first byte says which of the reader's files it stands for. What was found lies in the
folder of `--keep`. Exit status 1 after any finding.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.fuzz.mutate import SECONDS, bound_memory, judge, mutated, put_seeds
from tests.support.fuzz.targets import TARGETS, Target

READERS = {target.name: target for target in TARGETS}
OURS = ("duckling_data", "duckling_train")
RESIDENT = 1024
"""MiB of memory that libFuzzer allows, all libraries included: 140 to 500 of them."""
LONGEST = 1 << 16
"""Bytes of an input."""
LAST = "last.input"
"""What a child that dies without a word was at."""
EXECUTED = re.compile(r"^#(\d+)|^stat::number_of_executed_units: (\d+)", re.MULTILINE)
EDGES = re.compile(r"\bcov: (\d+)")
UNTELLING = re.compile(r"#\d+\s|INFO: |WARNING: |stat::|\s*$")
"""libFuzzer's lines about its progress."""
ENDED = {0: "clean", 70: "an execution took too long", 71: "too much memory", 77: "a fault"}
"""libFuzzer's exit statuses."""


class FindingError(Exception):
    """A reader neither read its input nor refused it in one line."""


def fuzz_here(target: Target, folder: Path, options: list[str]) -> None:
    """Fuzz the target in this process as libFuzzer's options say; never returns."""
    import atheris

    with atheris.instrument_imports(include=list(OURS)):  # some of a reader's modules are imported as it first reads
        put_seeds(target, folder)
    names = sorted(target.seeds())
    corpus = folder / "corpus.libfuzzer"
    corpus.mkdir()
    for number, name in enumerate(names):
        (corpus / str(number)).write_bytes(bytes([number]) + target.seeds()[name])

    def one(data: bytes) -> None:
        (folder / LAST).write_bytes(data)
        kind, fault = judge(target, folder, names[data[0] % len(names)] if data else names[0], data[1:])
        if kind == "fault":
            raise FindingError(fault)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if len(data) < 2 or draw.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        other = target.seeds()[draw.choice(names)]
        return (data[:1] + mutated(data[1:], other, draw))[:longest]

    bound_memory()
    inputs = options[-1:] if Path(options[-1]).is_file() else [str(corpus)]
    atheris.Setup(
        [sys.argv[0], *options[: len(options) - (inputs == options[-1:])], *inputs], one, custom_mutator=mutate
    )
    atheris.Fuzz()


def fuzz(target: Target, arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Fuzz the target in a child. Returns its line of the table and, of a finding, the end of what the child said."""
    arguments.keep.mkdir(parents=True, exist_ok=True)
    options = [
        *(f"-timeout={SECONDS}", f"-rss_limit_mb={RESIDENT}", f"-max_len={LONGEST}", f"-seed={arguments.seed + 1}"),
        *("-print_final_stats=1", f"-artifact_prefix={arguments.keep.absolute()}/{target.name}-"),
    ]
    if arguments.input:
        options.append(str(arguments.input.absolute()))
    else:
        options += [f"-runs={arguments.runs}"] if arguments.runs else []
        options += [f"-max_total_time={arguments.seconds}"] if arguments.seconds else []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        line = [sys.executable, __file__, "--child", folder, "--only", target.name, "--", *options]
        begin = time.monotonic()
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False, env=_environment())
        seconds = time.monotonic() - begin
        if done.returncode and (Path(folder) / LAST).exists():
            shutil.copy(Path(folder) / LAST, arguments.keep / f"{target.name}-last")
    said = done.stdout + done.stderr
    executed = max((int(a or b) for a, b in EXECUTED.findall(said)), default=0)
    edges = max(map(int, EDGES.findall(said)), default=0)
    result = ENDED.get(done.returncode, f"ended with status {done.returncode}")
    row = f"{target.name:<12} {executed:>10,} {edges:>6,} {seconds:>8.1f}  {result}"
    telling = [line for line in said.splitlines() if not UNTELLING.match(line)]
    return row, "\n    ".join(telling[-40:]) if done.returncode else None


def _environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Fuzz every reader, or those named, and print the table."""
    parser = argparse.ArgumentParser(description="Fuzz every reader of outside bytes, guided by coverage.")
    parser.add_argument("--runs", type=int, default=0, help="executions of each reader")
    parser.add_argument("--seconds", type=int, default=0, help="of each reader, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=READERS)
    parser.add_argument("--input", type=Path, help="run this one input of the reader that --only names")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="a folder for what was found")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install -e '.[fuzz]' (Linux), or use scripts/fuzz_readers.py")
    if arguments.child:
        fuzz_here(READERS[arguments.only[0]], arguments.child, arguments.options)
    if arguments.input and len(arguments.only or ()) != 1:
        parser.error("--input needs --only with the name of its reader")
    if not (arguments.runs or arguments.seconds or arguments.input):
        arguments.runs = 2000
    print(f"{'reader':<12} {'executions':>10} {'edges':>6} {'seconds':>8}  result", flush=True)
    found = False
    for name in arguments.only or READERS:
        row, said = fuzz(READERS[name], arguments)
        print(row, flush=True)
        if said is not None:
            print(f"    {said}\n    what it read is in {arguments.keep}", flush=True)
            found = True
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
