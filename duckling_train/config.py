"""What a run is made of: every setting that shapes its numbers, with Duckling II's values as defaults.

Paths, names and the clock are not settings: two runs with equal `TrainConfig`, equal data and equal library versions
are the same run.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from duckling_data.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
MAX_SEED = 2**32 - 1  # NumPy takes no larger seed

REFERENCE_RECIPE = {
    "engine": "reference",
    "precision": "bf16",
    "optimizer": "adamw_torch",
    "schedule": "linear",
    "warmup_steps": 0,
}
"""What the seed fixes and no flag changes yet, so that `config.json` states the whole recipe."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. Raises InputError when a value is out of range."""

    steps: int = 10_000
    """Optimizer steps; the learning rate falls linearly to 0 over them."""

    batch_size: int = 2
    """Rows a step."""

    learning_rate: float = 1e-4
    """AdamW's peak learning rate."""

    weight_decay: float = 0.01
    """AdamW's decoupled weight decay (biases and LayerNorm excepted, as the Trainer does it)."""

    max_grad_norm: float = 1.0
    """The global gradient norm is clipped to this."""

    seed: int = 42
    """Seeds the initial weights and the order of the rows."""

    logging_steps: int = 10
    """A loss is logged at step 1 and every this many steps: the mean since the last log."""

    device: str = "auto"
    """Where the model trains: cpu, cuda, mps, or auto for the first of cuda, mps, cpu that is there."""

    vocab_size: int = 8192
    """Rows of the embedding, live and dead."""

    n_positions: int = 512
    """Context length in tokens; the dataset's rows are this long."""

    n_embd: int = 128
    """Width of the residual stream and of an embedding row."""

    n_layer: int = 2
    """Transformer blocks."""

    n_head: int = 2
    """Attention heads a block."""

    n_inner: int = 512
    """Width of the feed-forward layer."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "logging_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{_flag(name)} is {getattr(self, name)}; it must be at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"--learning-rate is {self.learning_rate}; it must be a number above 0")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"--seed is {self.seed}; it must be between 0 and {MAX_SEED}")
        if self.device not in DEVICES:
            raise InputError(f"--device is {self.device!r}; it must be one of {', '.join(DEVICES)}")

    def resolved(self) -> dict[str, Any]:
        """Return the content of `config.json`: the fixed recipe, then every setting in order; JSON types only."""
        return {**REFERENCE_RECIPE, **dataclasses.asdict(self)}

    def run_name(self) -> str:
        """Return the run's default name: steps, seed, and whatever differs from Duckling II (the device apart)."""
        parts = [f"steps-{self.steps}-seed-{self.seed}"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("steps", "seed", "device") and value != field.default:
                parts.append(f"{field.name.replace('_', '-')}-{value:g}")
        return "-".join(parts)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
