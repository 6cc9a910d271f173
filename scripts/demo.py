"""The whole pipeline on the built-in stories: every stage, a short recorded training, both reports, a check of it all.

Run by `make demo`. Each step is a command that a person could type; it is printed before it runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

WORKSPACE = Path("artifacts/demo")
STEPS = 200
RUN = WORKSPACE / "runs" / "demo"


def command(*words: object) -> None:
    """Print a command, run it, and stop with its exit status if it fails, or after it on Ctrl-C."""
    print(f"\n$ {' '.join(map(str, words))}", flush=True)
    program, *rest = map(str, words)
    interrupted = 0
    child = subprocess.Popen([str(Path(sys.executable).with_name(program)), *rest])
    while True:
        try:
            status = child.wait() or interrupted
            break
        except KeyboardInterrupt:  # the terminal sends it to the command, too, which then ends by itself
            interrupted = 130
    if status:
        sys.exit(status)


def main() -> None:
    """Run the demo. Exit status 1 if the loss does not fall, a command's own if one fails."""
    os.chdir(Path(__file__).parent.parent)
    began = time.monotonic()
    command("duckling-data", "run", "--workspace", WORKSPACE, "--source", "demo")
    recorded = ("--record", "dead", "--record-tensors", "W,h_mean")
    command("duckling-train", "--steps", STEPS, "--workspace", WORKSPACE, "--out", RUN, "--overwrite", *recorded)
    command("duckling-train", "measure", RUN)
    command("duckling-train", "report", RUN)
    command("duckling-data", "verify", "--workspace", WORKSPACE)
    command("duckling-train", "verify", RUN)
    losses = [json.loads(line)["loss"] for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    if not losses[-1] < losses[0]:
        sys.exit(f"the loss did not fall: {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    print(screen(time.monotonic() - began, losses))


def screen(seconds: float, losses: list[float]) -> str:
    """Return the last screen: what was made, where to look, what to type next."""
    stages = json.loads((WORKSPACE / "manifest.json").read_text())["stages"]
    stories, coverage = stages["count"]["figures"]["stories"], stages["build-vocab"]["figures"]["coverage"]
    rows = stages["pack"]["figures"]["splits"]["train"]["rows"]
    made = {
        WORKSPACE / "token_mapping.json": f"6,144 live ids, covering {coverage:.2%} of the tokens, and 2,048 dead ones",
        WORKSPACE / "tokenized_dataset": f"{rows:,} rows of 512 tokens: datasets.load_from_disk opens them",
        WORKSPACE / "report" / "index.html": "coverage, frequencies, story lengths: open it in a browser",
        RUN / "report.html": "what the dead rows did at every step: open it in a browser",
        RUN / "loss.png": f"the loss: {losses[0]:.2f} at first, {losses[-1]:.2f} after {STEPS} steps",
        RUN / "samples.txt": "what the model writes so far",
        RUN / "model": "opens with AutoModelForCausalLM.from_pretrained",
    }
    width = max(len(str(path)) for path in made)
    lines = "\n".join(f"  {path!s:<{width}}  {what}" for path, what in made.items())
    return f"""
Done in {seconds:.0f} s: {stories:,} demo stories became a vocabulary, rows and a trained model.

{lines}

To start an experiment of your own on them, or to let the model go on, type

  .venv/bin/duckling-train template my_experiment.ipynb --workspace artifacts/demo
  .venv/bin/duckling-train generate artifacts/demo/runs/demo --prompt "Once upon a time"

These are demo stories. For the real TinyStories (1 GB from the hub), type

  .venv/bin/duckling-data run
  .venv/bin/duckling-train --steps 10000

and everything is made in artifacts/."""


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
