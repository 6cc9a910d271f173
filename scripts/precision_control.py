"""Which rounding stops the loss of `bf16-pure`, the weights' or the moments'? The run between: float32 weights whose
AdamW moments are rounded to bf16 after every step.

Weights, batches and schedule are those of `scripts/precision_experiment.py` at the same seed and steps, whose runs are
the other three corners: fp32 (neither rounded), bf16-weights (the weights alone), bf16-pure (both).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback

from duckling_data.base.strict_json import write_json
from duckling_train import duckling_ii

MOMENTS = ("exp_avg", "exp_avg_sq")
CORNERS = ("fp32", "bf16-weights", "bf16-pure")


class RoundMoments(TrainerCallback):  # type: ignore[misc]
    """Leaves in AdamW's two moments what bf16 can hold, after each update."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Round."""
        for moments in optimizer.state.values():
            for name in MOMENTS:
                moments[name].copy_(moments[name].to(torch.bfloat16))


def main() -> None:
    """Train, write the losses, and print the four corners side by side as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--workspace", "-w", type=Path, default=Path("artifacts/demo"), help="dataset and mapping")
    parser.add_argument("--steps", type=int, default=2000, help="steps")
    parser.add_argument("--seed", type=int, default=42, help="seed of weights and batches")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts/demo/precision"), help="where precision_experiment.py put its runs"
    )
    options = parser.parse_args()
    lab = duckling_ii(options.workspace, precision="fp32", seed=options.seed, threads=options.threads)
    tracker = lab.train(options.steps, callbacks=[RoundMoments()])
    losses = dict(zip(tracker.steps, tracker.losses, strict=True))
    write_json(options.out / "bf16-moments.json", losses)
    print(table({"bf16 moments, float32 weights": losses, **corners(options.out)}))


def corners(folder: Path) -> dict[str, dict[int, float]]:
    """Return the logged losses of those runs of the experiment that are there."""
    found = {}
    for name in CORNERS:
        path = folder / name / "metrics.jsonl"
        if path.exists():
            lines = map(json.loads, path.read_text().splitlines())
            found[name] = {line["step"]: line["loss"] for line in lines}
    return found


def table(runs: dict[str, dict[int, float]], tail: int = 20) -> str:
    """Return the mean of each run's last `tail` logged losses, in nats a token, as Markdown."""
    rows = [f"| {name} | {sum(list(run.values())[-tail:]) / tail:.3f} |" for name, run in runs.items()]
    return "\n".join([f"| | mean of the last {tail} logged losses |", "|---|---|", *rows])


if __name__ == "__main__":
    main()
