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
from duckling_train import duckling_ii

ROOT = Path(__file__).parent.parent
LIVE, DEAD = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito (2008): different to the colour-blind, too."""
FONTS = {"font.size": 12, "axes.titlesize": 15, "axes.labelsize": 12}

Rows = npt.NDArray[np.float64]


def trained(workspace: Path, steps: int) -> tuple[Rows, Rows, int]:
    """Train. Return W at the start and its change over the run, float64[vocabulary, width]; then, how many are live."""
    lab = duckling_ii(workspace, precision="fp32", device="cpu", threads=1)
    start = lab.W.detach().double().numpy().copy()
    lab.train(steps)
    return start, lab.W.detach().double().numpy() - start, lab.token_mapping["live_tokens"]


def coherence(moves: Rows) -> float:
    """Return the mean pairwise cosine of the rows of `moves`: 1 is one direction for all rows."""
    unit = moves / np.linalg.norm(moves, axis=1, keepdims=True)
    n = len(unit)
    return float((np.sum(unit.sum(axis=0) ** 2) - n) / (n * (n - 1)))


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
    axes = figure.add_subplot()
    distance, ids = np.linalg.norm(moves, axis=1), np.arange(len(moves))
    norm = np.linalg.norm(start, axis=1).mean()
    axes.axvspan(live, len(ids), color=DEAD, alpha=0.08, linewidth=0)
    axes.axhline(norm, color="0.45", linestyle="--", linewidth=1)
    axes.text(live / 2, norm, f"mean norm of a row at the start: {norm:.3f}", color="0.3", fontsize=10.5, ha="center",
              va="bottom")  # fmt: skip
    for name, colour, group in (("live", LIVE, slice(0, live)), ("dead", DEAD, slice(live, len(ids)))):
        axes.plot(ids[group], distance[group], ".", color=colour, markersize=2, alpha=0.5)
        centre, top = (group.start + group.stop) / 2, axes.get_xaxis_transform()
        axes.text(centre, 0.98, f"{group.stop - group.start:,} {name} rows", transform=top, color=colour, weight="bold",
                  ha="center", va="top")  # fmt: skip
        axes.text(centre, 0.06, f"mean pairwise cosine\nof their displacements:\n{coherence(moves[group]):.4f}",
                  transform=top, color=colour, fontsize=10.5, ha="center")  # fmt: skip
    axes.set_title(f"How far each row of the embedding moved in {steps:,} steps", loc="left", pad=12)
    axes.set_xlabel("compact id: live tokens, the most frequent first, then dead tokens")
    axes.set_ylabel("distance from the start, ‖W − W₀‖")
    axes.set_xlim(-80, len(ids) + 40)
    axes.set_ylim(0, 1.2 * max(norm, distance.max()))
    axes.set_xticks([0, 1000, 2000, 3000, 4000, 5000, live, len(ids)])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
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
