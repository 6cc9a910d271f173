"""Times training: the fast engine beside the reference engine, both in one run, and what a step's time goes to.

Each measurement is a process of its own. A round has every contender once, the order turned from round to round; its
figures are medians of blocks of steps, those printed are medians over the rounds, and a ratio is the median of the
rounds' ratios, so that a machine that slows down counts for all. On a machine that others use as well, CPU time with
--threads 1 is the figure to look at. With --device cuda, peak MB is what torch took of the GPU's memory, and replays
are those of the fast engine's CUDA graph in one measurement. --grow varies the sizes of the fast engine's work instead,
one at a time.

A step's work is counted as 6 · B · T · (12 L D² + V D + 2 L T D) floating-point operations for B rows of T tokens, L
blocks of width D and V embedding rows: a product of matrices forward and two backward, attention without regard to its
mask (Chowdhery et al. 2022, appendix B). Its share of the peak is that rate over the machine's own in a large square
product: in float32 for float32, for bf16 in the faster of bf16 and float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from duckling_train.config import PRECISIONS, TrainConfig, word  # noqa: E402
from duckling_train.engines import FAST, REFERENCE  # noqa: E402
from tests.support.timed_training import MACHINE, SEED, Figures, Task  # noqa: E402

MANY = "many"
GROWTH: dict[str, tuple[int, ...]] = {
    "batch_size": (1, 2, 4, 8, 16, 32, 64),
    "n_layer": (2, 3, 4, 6, 8),
    "n_positions": (128, 256, 512, 1024),
    "vocab_size": (2048, 4096, 8192, 16384, 32768, 50304),
    "models at once": (1, 2, 4, 8, 16, 32, 64),
}
"""What --grow varies around Duckling II."""
MODELS = "models at once"
PACE: dict[str, Any] = {"warm": 10, "block": 20}
"""Of a measurement on a GPU: its graph is captured at the third step, and its steps are short."""
Rounds = list[dict[str, Figures]]


def progress(line: str) -> None:
    """Say on standard error how far it is."""
    print(line, file=sys.stderr, flush=True)


def run(task: Task) -> Figures:
    """Do a task in a process of its own. Returns what it printed."""
    given = json.dumps(dataclasses.asdict(dataclasses.replace(task, began=time.time())))
    command = [sys.executable, "-m", "tests.support.timed_training", given]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if task.settings["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # the seed's cells would take a GPU
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{task} failed:\n{done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def flop(config: TrainConfig) -> float:
    """Return the floating-point operations of a model's step: the formula is in the script's description."""
    blocks = 12 * config.n_layer * config.n_embd**2
    attention = 2 * config.n_layer * config.n_positions * config.n_embd
    return 6.0 * config.batch_size * config.n_positions * (blocks + config.vocab_size * config.n_embd + attention)


def share(machine: Figures, config: TrainConfig, steps_per_second: float) -> float:
    """Return the share of the machine's peak that this many models' steps a second are."""
    peaks = machine["peak_gflops"]
    peak = peaks["float32"] if config.precision == "fp32" else max(peaks.values())
    return steps_per_second * flop(config) / 1e9 / float(peak)


def contenders(options: argparse.Namespace, settings: Figures) -> dict[str, Task]:
    """Return what is measured in a round of one precision, by name."""
    common: dict[str, Any] = {
        "settings": settings, "steps": options.steps, "seconds": options.seconds, "workspace": options.workspace,
    } | (PACE if options.device == "cuda" else {})  # fmt: skip
    tasks = {FAST: Task(FAST, **common), REFERENCE: Task(REFERENCE, **common)}
    if options.with_seed:
        tasks[SEED] = Task(SEED, **common)
    if options.many:
        tasks[MANY] = Task(FAST, jobs=options.many, **common)
    return tasks


def measured_rounds(tasks: dict[str, Task], rounds: int, precision: str) -> Rounds:
    """Measure each task once a round, the order turned from round to round."""
    done: Rounds = []
    for number in range(rounds):
        names = list(tasks) if number % 2 == 0 else list(tasks)[::-1]
        done.append({name: run(tasks[name]) for name in names})
        speeds = ", ".join(f"{name} {done[-1][name]['steps_per_second']:.3g}" for name in tasks)
        progress(f"{precision}, round {number + 1} of {rounds}, steps/s: {speeds}")
    return done


def median(rounds: Rounds, name: str, figure: str) -> float:
    """Return the median of a contender's figure over the rounds."""
    return statistics.median(measured[name][figure] for measured in rounds)


def ratio(rounds: Rounds, tasks: dict[str, Task], name: str, other: str) -> float:
    """Return the median of the rounds' ratios of two contenders' steps/s, summed over their models."""
    speeds = [
        {each: tasks[each].jobs * measured[each]["steps_per_second"] for each in (name, other)} for measured in rounds
    ]
    return statistics.median(pair[name] / pair[other] for pair in speeds)


def speed_lines(machine: Figures, config: TrainConfig, tasks: dict[str, Task], rounds: Rounds) -> list[str]:
    """Return the rows of a precision's table; those of many models at once are of their sum, CPU ms of one."""
    lines = []
    for name, task in tasks.items():
        per_second = task.jobs * median(rounds, name, "steps_per_second")
        cells = [
            config.precision,
            name if task.jobs == 1 else f"fast, {task.jobs} at once",
            f"{per_second:.2f}",
            f"{ratio(rounds, tasks, name, REFERENCE):.2f}",
            f"{ratio(rounds, tasks, name, FAST):.2f}",
            f"{median(rounds, name, 'cpu_ms') / task.jobs:.1f}",
            f"{per_second * config.batch_size * config.n_positions:,.0f}",
            f"{share(machine, config, per_second):.0%}",
            f"{median(rounds, name, 'peak_mb'):,.0f}",
            f"{median(rounds, name, 'startup_seconds'):.1f}",
            rounds[0][name]["chosen"],
        ]
        if config.device == "cuda" and task.kind == FAST:
            cells[-1] += f", {rounds[0][name]['replays']:,} replays"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


SPEED_HEAD = (
    "| precision | engine | steps/s | × reference | × fast | CPU ms a step | tokens/s | share of peak | peak MB | "
    "start to first step, s | arithmetic |",
    "|---|---" + "|---:" * 8 + "|---|",
)


def parts_table(parts: dict[str, dict[str, float]], device: str = "cpu") -> list[str]:
    """Return the parts of the fast engine's step as Markdown: milliseconds, by precision."""
    how = "" if device == "cpu" else " without a graph, each part waited for"
    lines = [f"| a step of the fast engine{how}, ms | {' | '.join(parts)} |", "|---" + "|---:" * len(parts) + "|"]
    for name in next(iter(parts.values())):
        lines.append(f"| {name} | {' | '.join(f'{of_one[name]:.1f}' for of_one in parts.values())} |")
    return lines


def machine_line(machine: Figures) -> str:
    """Return what the machine is."""
    peaks = ", ".join(f"{name} {rate:,.0f}" for name, rate in machine["peak_gflops"].items())
    native = "native bf16" if machine["native_bf16"] else "no native bf16"
    return (
        f"{machine['processor']}, threads: {machine['threads']}, torch {machine['torch']}, CPU capability "
        f"{machine['capability']}, {native}; a large square product, GFLOP/s: {peaks}"
    )


def compare(options: argparse.Namespace, machine: Figures, shared: Figures) -> Figures:
    """Measure the engines, print the tables. Returns all figures."""
    lines, parts, raw = list(SPEED_HEAD), {}, {}
    for precision in options.precision:
        config = TrainConfig(**shared, precision=precision)
        tasks = contenders(options, shared | {"precision": precision})
        rounds = measured_rounds(tasks, options.rounds, precision)
        lines += speed_lines(machine, config, tasks, rounds)
        parts[precision] = run(dataclasses.replace(tasks[FAST], parts=True))["parts_ms"]
        raw[precision] = rounds
    print("\n".join([*lines, "", *parts_table(parts, options.device)]))
    return {"rounds": raw, "parts_ms": parts}


def grow(options: argparse.Namespace, machine: Figures, shared: Figures) -> Figures:
    """Measure the fast engine over GROWTH, print the table, draw the plot. Returns the milliseconds of a step."""
    found: dict[str, dict[str, dict[int, float]]] = {name: {} for name in options.precision}
    lines = ["| precision | varied | value | ms a step | tokens/s | share of peak |", "|---|---" + "|---:" * 4 + "|"]
    for precision in options.precision:
        for varied, values in GROWTH.items():
            times = found[precision].setdefault(varied, {})
            for value in values:
                change = {} if varied == MODELS else {varied: value}
                settings, jobs = shared | {"precision": precision} | change, value if varied == MODELS else 1
                pace = PACE if options.device == "cuda" else {"warm": 2, "block": 1}
                task = Task(FAST, settings, jobs, options.steps, options.seconds, **pace)
                times[value] = 1e3 / run(task)["steps_per_second"]
                config = TrainConfig(**settings)
                tokens = jobs * config.batch_size * config.n_positions * 1e3 / times[value]
                part = share(machine, config, jobs * 1e3 / times[value])
                lines.append(
                    f"| {precision} | {word(varied)} | {value:,} | {times[value]:.1f} | {tokens:,.0f} | {part:.0%} |"
                )
                progress(lines[-1])
    print("\n".join(lines))
    options.plot.write_bytes(growth_plot(found, machine_line(machine).partition("; ")[0]))
    return {"ms": found}


def growth_plot(found: dict[str, dict[str, dict[int, float]]], title: str) -> bytes:
    """Return a PNG of the milliseconds of a step over how many times as large as its default each size is."""
    from duckling_data.base.plotting import COLOURS, default_settings, png

    with default_settings():
        from matplotlib.figure import Figure
        from matplotlib.ticker import StrMethodFormatter

        figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        for precision, line in zip(found, ("solid", "dashed", "dotted", "dashdot", (0, (5, 1))), strict=False):
            for (varied, times), colour in zip(found[precision].items(), COLOURS, strict=False):
                default = 1 if varied == MODELS else getattr(TrainConfig, varied)
                axes.plot([value / default for value in times], list(times.values()), color=colour, linestyle=line,
                          marker="o", markersize=3.5, label=f"{word(varied)}, {precision}")  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set_xlabel("times the default")
        axes.set_ylabel("milliseconds a step")
        axes.set_title(title, fontsize=10)
        axes.grid(which="both", alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        return png(figure)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--precision", action="append", choices=PRECISIONS, help="may be given again; bf16-mixed and fp32 by default")
    add("--batch-size", type=int, default=TrainConfig.batch_size, help="rows a step (default: %(default)s)")
    add("--steps", type=int, help="steps of a measurement, at least 10 (default: 60; 12 with --grow; 210 on a GPU)")
    add("--seconds", type=float, help="of a measurement, after which it ends early (default: 60; 10 with --grow)")
    add("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    add("--threads", type=int, help="CPU threads (default: torch's own number)")
    add("--many", type=int, metavar="K", help="K models at once, too, beside one at a time")
    add("--with-seed", action="store_true", help="the seed's bare cells, too: bf16-mixed or fp32, batch 2, a workspace")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    add("--workspace", metavar="DIR", help="where rows are taken from, if they fit (default: random ones)")
    add("--grow", action="store_true", help="how the fast engine's time grows with each size, instead")
    add("--plot", type=Path, default=Path("growth.png"), help="where --grow draws it (default: %(default)s)")
    add("--out", type=Path, metavar="FILE", help="write all figures as JSON, too")
    options = parser.parse_args(arguments)
    options.precision = options.precision or ["bf16-mixed", "fp32"]
    options.workspace = options.workspace and str(Path(options.workspace).resolve())
    options.steps = options.steps or (210 if options.device == "cuda" else 12 if options.grow else 60)
    options.seconds = options.seconds or (10 if options.grow else 60)
    if options.steps < 10:
        parser.error("--steps is at least 10")
    own = options.batch_size == TrainConfig.batch_size and {*options.precision} <= {"bf16-mixed", "fp32"}
    if options.with_seed and not (own and options.workspace):
        parser.error("--with-seed needs --workspace, batches of 2, and bf16-mixed or fp32")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parsed(arguments)
    shared: Figures = {"batch_size": options.batch_size, "device": options.device}
    shared |= {"threads": options.threads} if options.threads else {}
    machine = run(Task(MACHINE, shared))
    print(machine_line(machine), end="\n\n", flush=True)
    figures = (grow if options.grow else compare)(options, machine, shared)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine, "settings": shared} | figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
