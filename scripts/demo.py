"""The whole road on the built-in stories: every stage, the report, a short training run, and a check of it all.

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
    """Print a command, run it, and stop with its exit status if it fails."""
    print(f"\n$ {' '.join(map(str, words))}", flush=True)
    program, *rest = map(str, words)
    done = subprocess.run([str(Path(sys.executable).with_name(program)), *rest], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Run the demo. Exit status 1 if the loss does not fall, a command's own if one fails."""
    os.chdir(Path(__file__).parent.parent)
    began = time.monotonic()
    command("duckling-data", "run", "--workspace", WORKSPACE, "--source", "demo")
    command("duckling-train", "--steps", STEPS, "--workspace", WORKSPACE, "--out", RUN, "--overwrite")
    command("duckling-data", "verify", "--workspace", WORKSPACE)
    losses = [json.loads(line)["loss"] for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    if not losses[-1] < losses[0]:
        sys.exit(f"the loss did not fall: {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    figures = json.loads((WORKSPACE / "manifest.json").read_text())["stages"]
    print(SCREEN.format(
        seconds=time.monotonic() - began,
        workspace=WORKSPACE,
        run=RUN,
        stories=figures["count"]["figures"]["stories"],
        rows=figures["pack"]["figures"]["splits"]["train"]["rows"],
        coverage=figures["build-vocab"]["figures"]["coverage"],
        first=losses[0],
        last=losses[-1],
        steps=STEPS,
    ))  # fmt: skip


SCREEN = """
Done in {seconds:.0f} s: {stories:,} demo stories became a vocabulary, {rows:,} rows and a trained model.

  {workspace}/token_mapping.json       6,144 live ids, covering {coverage:.2%} of the tokens, and 2,048 dead ones
  {workspace}/tokenized_dataset/       the rows: datasets.load_from_disk opens them
  {workspace}/report/index.html        coverage, frequencies, story lengths: open it in a browser
  {run}/loss.png             the loss: {first:.2f} at first, {last:.2f} after {steps} steps
  {run}/samples.txt          what the model writes so far
  {run}/model/               opens with AutoModelForCausalLM.from_pretrained

These are demo stories. For the real TinyStories (1 GB from the hub), type

  .venv/bin/duckling-data run
  .venv/bin/duckling-train --steps 10000

and everything is made in artifacts/."""


if __name__ == "__main__":
    main()
