"""Draws docs/dead_rows.png, the picture in the README: how far each row of the embedding moves in a short training run.

    python scripts/readme_picture.py [--workspace DIR] [--steps N] [--out FILE]

Trains Duckling II in float32 on one CPU thread, 400 steps on the demo stories (`make demo` makes them), and compares W
at the end with W at the start. It prints the figures that the README gives. It takes a minute or two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duckling_data.base.plotting import default_settings
from duckling_train import duckling_ii, plots
from duckling_train.dynamics.coherence import coherence
from duckling_train.plots.axes import DEAD, LIVE

ROOT = Path(__file__).parent.parent
FONTS = {"font.size": 12, "axes.titlesize": 15, "axes.labelsize": 12}

Rows = npt.NDArray[np.float64]


def trained(workspace: Path, steps: int) -> tuple[Rows, Rows, int]:
    """Train. Return W at the start and its change over the run, float64[vocabulary, width]; then, how many are live."""
    lab = duckling_ii(workspace, precision="fp32", device="cpu", threads=1)
    start = lab.W.detach().double().numpy().copy()
    lab.train(steps)
    return start, lab.W.detach().double().numpy() - start, lab.token_mapping["live_tokens"]


def report(name: str, moves: Rows) -> str:
    """Return a line of figures for a group of rows."""
    distance = np.linalg.norm(moves, axis=1)
    low, high = np.percentile(distance, [0.5, 99.5])
    return (
        f"{name} rows: mean distance {distance.mean():.4f}, 99 % between {low:.4f} and {high:.4f}, "
        f"centroid drift {np.linalg.norm(moves.mean(axis=0)):.4f}, coherence {coherence(moves):.4f}"
    )


@default_settings(FONTS)
def draw(start: Rows, moves: Rows, live: int, steps: int, out: Path) -> None:
    """Write the PNG: the distance of each row from its start, live rows by frequency, dead rows after them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes, dead = figure.add_subplot(), np.arange(len(moves)) >= live
    plots.distance(np.linalg.norm(moves, axis=1), dead, axes, start=np.linalg.norm(start, axis=1).mean())
    for colour, group in ((LIVE, ~dead), (DEAD, dead)):
        text = f"mean pairwise cosine\nof their displacements:\n{coherence(moves[group]):.4f}"
        middle, bottom = np.flatnonzero(group).mean(), axes.get_xaxis_transform()
        axes.text(middle, 0.06, text, transform=bottom, color=colour, fontsize=10.5, ha="center")
    axes.set_title(f"How far each row of the embedding moved in {steps:,} steps", loc="left", pad=12)
    figure.savefig(out, metadata={"Software": None})


def main() -> None:
    """Train, print the figures, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=ROOT / "artifacts" / "demo", help="default: artifacts/demo")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps (default: 400)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "dead_rows.png", help="default: docs/dead_rows.png")
    options = parser.parse_args()
    start, moves, live = trained(options.workspace, options.steps)
    print(report("live", moves[:live]), report("dead", moves[live:]), sep="\n")
    draw(start, moves, live, options.steps, options.out)


if __name__ == "__main__":
    main()
