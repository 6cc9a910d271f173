"""What a run is made of: every setting that shapes its numbers, with Duckling II's values as defaults.

Two runs with equal `TrainConfig`, equal data and equal library versions are the same run. `config.json` is
`TrainConfig.resolved()`; `settings.py` makes a config of presets, files and flags.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_train.ids import ids_below, read_ids

T = TypeVar("T")

PRECISIONS = ("bf16-mixed", "fp32", "bf16-pure", "bf16-weights", "bf16-stochastic")
CHOICES = {
    "engine": ("auto", "fast", "reference"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "optimizer": ("adamw", "sgd", "coupled-adam"),
    "schedule": ("linear", "constant", "cosine"),
    "precision": PRECISIONS,
    "arithmetic": ("auto", "bf16", "bf16-in-float32", "float32"),
    "activation": ("gelu", "gelu_new", "relu", "relu2", "silu", "tanh"),
    "compile": ("auto", "yes", "no"),
    "report_to": ("none", "tensorboard", "wandb"),
    "record_dtype": ("native", "bf16"),
    "on_record_error": ("stop", "continue"),
}
MAX_SEED = 2**32 - 1  # NumPy takes no larger seed
MAX_RATE = 1e36  # a step of more overflows float32
INNER_FACTOR = 4
LIMITS = {**dict.fromkeys(("steps", "warmup_steps", "logging_steps", "eval_steps", "checkpoint_steps", "eval_rows",
                           "record_every"), 10**9),
          "batch_size": 2**16, "n_layer": 2**10, "n_embd": 2**16, "n_head": 2**10, "n_positions": 2**16,
          "vocab_size": 2**20, "threads": 2**10, "processes": 2**16}  # fmt: skip
"""The largest value of each number: far more than Duckling is for, and less than what fills a machine's memory before
anything is checked. A vocabulary ends where that of rows does."""
FROM_ZERO = ("warmup_steps", "eval_steps", "checkpoint_steps", "eval_rows")
"""Those of LIMITS that may be 0; the others are at least 1."""
MAX_PARAMETERS = 10**10
"""The largest model: 40 GB in float32, and four times that with its gradients and AdamW's moments."""
RECORDED = ("W", "grad", "exp_avg", "exp_avg_sq", "h_mean", "p_dead")
"""What may be recorded."""
OF_ADAM = ("betas", "adam_epsilon")
"""Settings that SGD has not."""
FIRST = ("engine", "optimizer", "adam_epsilon", "activation", "dropout")
"""The settings that come first in `config.json`."""
OF_THE_RECORD = ("record", "record_every", "record_tensors", "record_dtype", "on_record_error")
"""Settings of what is recorded: none of them changes a number of the run."""
ADDED = ("init_std", "mask_across_stories", "compile", "arithmetic", *OF_THE_RECORD)
"""Settings that `config.json` has only where they are not at their default: earlier versions had none of them."""
WITHOUT_A_FLAG = ("arithmetic", "processes")
"""Settings that a run finds out for itself."""
NOT_IN_THE_NAME = ("steps", "seed", "device", "threads", "processes", "compile", "arithmetic", "report_to",
                   "checkpoint_steps", "keep_checkpoints", "eval_steps", "eval_rows", *OF_THE_RECORD)  # fmt: skip
"""Settings that are not in the rest of a run's default name: in it already, or without effect on the numbers."""


def setting(default: T, meaning: str) -> T:
    """Return a field of TrainConfig with the text that `--help` shows of its flag."""
    return dataclasses.field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. Raises InputError when a value is out of range.

    >>> TrainConfig(n_layer=4).parameters
    1907456
    """

    engine: str = setting(
        "auto", "What trains: fast is Duckling's own step, reference the Hugging Face Trainer, bitwise the seed."
    )
    """auto is fast where it has every setting given, else reference."""
    optimizer: str = setting(
        "adamw",
        "AdamW; stochastic gradient descent without momentum; AdamW with the second moment of the embedding averaged "
        "over the vocabulary.",
    )
    """`optimizers.py` has the formulas."""
    steps: int = setting(10_000, "Optimizer steps.")
    """The schedule is stretched over them."""
    batch_size: int = setting(2, "Rows a step, of all processes together.")
    learning_rate: float = setting(1e-4, "Peak learning rate.")
    schedule: str = setting("linear", "Learning rate after the warm-up.")
    """Linear to 0, constant, or half a cosine to 0."""
    warmup_steps: int = setting(0, "Steps over which it first rises from 0.")
    weight_decay: float = setting(0.01, "Decoupled weight decay.")
    """Biases and LayerNorm have none."""
    max_grad_norm: float = setting(1.0, "Largest global gradient norm; 0 clips nothing.")
    betas: tuple[float, float] = setting((0.9, 0.999), "AdamW's two decays.")
    adam_epsilon: float = setting(1e-8, "AdamW's epsilon, added to the root of the second moment.")
    precision: str = setting(
        "bf16-mixed",
        "The seed's autocast; float32; all in bfloat16 (the loss stops falling); bfloat16 weights with "
        "float32 Adam state, rounded to nearest; the same, rounded stochastically.",
    )
    seed: int = setting(42, "Seed of the weights.")
    """Of the rounding of bf16-stochastic and of dropout, too."""
    data_seed: int | None = setting(None, "Seed of the order of the rows.  [default: --seed]")
    n_layer: int = setting(2, "Transformer blocks.")
    n_embd: int = setting(128, "Width of an embedding row; the feed-forward layer is 4 times as wide.")
    n_head: int = setting(2, "Attention heads a block.")
    tied: bool = setting(True, "Whether the softmax uses the embedding's own rows.")
    n_positions: int = setting(512, "Context length; must be the dataset's, and is by default.")
    vocab_size: int = setting(8192, "Embedding rows, live and dead; must be the mapping's, and are by default.")
    activation: str = setting("gelu", "Of the feed-forward layer, by transformers' names.")
    dropout: float = setting(0.0, "Dropout of the embedding, the attention weights and each layer's output.")
    init_std: float = setting(0.02, "Standard deviation of the initial weights.")
    """GPT-2 divides it by √(2 · blocks) for the layers that write to the residual stream."""
    mask_across_stories: bool = setting(
        False, "Let a token attend only to its own story; needs pack --positions.  [default: off]"
    )
    logging_steps: int = setting(10, "Steps between two logged losses.")
    """Step 1 is logged, too. A logged loss is the mean since the last log."""
    eval_steps: int = setting(0, "Steps between two evaluations; 0 evaluates at the end alone.")
    eval_rows: int | None = setting(128, "Validation rows an evaluation takes; 0 never evaluates.")
    checkpoint_steps: int = setting(1000, "Steps between two checkpoints; 0 writes none.")
    keep_checkpoints: bool = setting(
        False, "Keep all of them: else the last two, and none after the end.  [default: off]"
    )
    report_to: str = setting("none", "Where else metrics go than the run directory.")
    device: str = setting("auto", "Where to train.")
    """auto is the first of cuda, mps, cpu that is there."""
    threads: int | None = setting(None, "CPU threads; they shape a CPU run's bits.  [default: torch's]")
    compile: str = setting("auto", "Whether the fast engine compiles parts in C++ on a CPU; auto: if it can.")
    record: str = setting("none", "Rows of the embedding to record in record.zarr: none, dead, all, or ids.")
    """Ids as 6144:6200,7."""
    record_every: int = setting(1, "Steps between two that are recorded; step 0 is the first.")
    record_tensors: str = setting("W", "What to record, between commas: W, grad, exp_avg, exp_avg_sq, h_mean, p_dead.")
    """`recording/recorder.py` defines them."""
    record_dtype: str = setting("native", "Numbers as they are, or W, gradients and moments rounded to bf16.")
    on_record_error: str = setting("stop", "Whether the training stops where the record cannot be written.")
    arithmetic: str = "auto"
    """How the fast engine multiplies (`engines/fast/arithmetic.py`): chosen where a run starts, not a flag."""
    processes: int = 1
    """Processes that share a batch: torchrun's number, not a flag."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name, most in LIMITS.items():
            value, more = getattr(self, name), ", or all" if name == "eval_rows" else ""
            if value is not None:
                least = 0 if name in FROM_ZERO else 1
                _check(name, value, value >= least, f"at least {least}{more}")
                _check(name, value, value <= most, f"at most {most:,}{more}")
        for name in ("weight_decay", "max_grad_norm", "adam_epsilon"):
            value = getattr(self, name)
            _check(name, value, math.isfinite(value) and value >= 0, "a number, at least 0")
        for name in ("learning_rate", "init_std"):
            value = getattr(self, name)
            _check(name, value, 0 < value <= MAX_RATE, f"a number above 0, at most {MAX_RATE:g}")
        _check("dropout", self.dropout, 0 <= self.dropout < 1, "a number, at least 0 and below 1")
        if self.eval_steps and self.eval_rows == 0:
            steps, rows = named("eval_steps"), named("eval_rows")
            raise InputError(f"{steps} is {self.eval_steps} and {rows} 0, which evaluates never: give one")
        for beta in self.betas:
            _check("betas", beta, 0 <= beta < 1, "two numbers, at least 0 and below 1")
        for name in ("seed", "data_seed"):
            value = getattr(self, name)
            _check(name, value, value is None or 0 <= value <= MAX_SEED, f"between 0 and {MAX_SEED}")
        for name, known in CHOICES.items():
            _check(name, short(getattr(self, name)), getattr(self, name) in known, f"one of {', '.join(known)}")
        for name in OF_ADAM if self.optimizer == "sgd" else ():
            unset = getattr(self, name) == getattr(TrainConfig, name)
            _check(name, getattr(self, name), unset, f"left out with {given('optimizer', 'sgd')}, which has none")
        self._check_record()
        if self.parameters > MAX_PARAMETERS:
            sizes = [given(name, getattr(self, name)) for name in ("n_layer", "n_embd", "n_positions", "vocab_size")]
            raise InputError(
                f"{', '.join(sizes[:-1])} and {sizes[-1]} make {self.parameters:,} parameters; "
                f"at most {MAX_PARAMETERS:,} are taken"
            )
        if self.n_embd % self.n_head:
            width, heads = named("n_embd"), named("n_head")
            raise InputError(f"{width} is {self.n_embd} and {heads} {self.n_head}; the heads must divide the width")
        if self.batch_size % self.processes:
            started = f"torchrun started {self.processes} processes"
            raise InputError(f"{named('batch_size')} is {self.batch_size} and {started}; they must divide the batch")

    def _check_record(self) -> None:
        """Raise InputError for a record that cannot be."""
        if self.record not in ("none", "dead", "all"):
            ids_below(read_ids(self.record, named("record")), self.vocab_size, named("record"))
        tensors = self.record_tensors.split(",")
        known = "W" in tensors and len(set(tensors)) == len(tensors) and set(tensors) <= set(RECORDED)
        _check("record_tensors", self.record_tensors, known, f"W and any of {', '.join(RECORDED[1:])}, each once")
        if self.record == "none":
            for name in OF_THE_RECORD[1:]:
                unset = getattr(self, name) == getattr(TrainConfig, name)
                _check(name, getattr(self, name), unset, f"left out, or {given('record', 'dead')} given")
        if self.optimizer == "sgd" and any(name.startswith("exp_avg") for name in tensors):
            _check(
                "record_tensors", self.record_tensors, False, f"without moments: {given('optimizer', 'sgd')} has none"
            )
        if self.processes > 1 and set(tensors) & {"grad", "h_mean", "p_dead"}:
            only = f"W and moments where torchrun starts {self.processes} processes: the others are one process's"
            _check("record_tensors", self.record_tensors, False, only)

    @property
    def n_inner(self) -> int:
        """Width of the feed-forward layer."""
        return INNER_FACTOR * self.n_embd

    @property
    def parameters(self) -> int:
        """How many parameters the model has, a tied embedding counted once: by the sizes alone, nothing is built."""
        tables = self.vocab_size * (1 if self.tied else 2) + self.n_positions
        attention, feed_forward = 4 * self.n_embd + 4, 2 * self.n_inner + INNER_FACTOR + 1
        norms = 2 * (2 * self.n_layer + 1)
        return self.n_embd * (tables + self.n_layer * (attention + feed_forward) + norms)

    @property
    def goes_on(self) -> bool:
        """Whether a finished run can go on to more steps: its learning rate does not depend on their number."""
        return self.schedule == "constant"

    def is_due(self, step: int, every: int) -> bool:
        """Return whether what is done after the last step, and every so many (0: no others), is done after this one."""
        return step >= self.steps or (every > 0 and step % every == 0)

    def resolved(self) -> dict[str, Any]:
        """Return the content of `config.json`: every setting, FIRST those, then in order; JSON types only."""
        derived = {"betas": list(self.betas), "n_inner": self.n_inner}
        content = {**dict.fromkeys(FIRST), **dataclasses.asdict(self), **derived}
        unset = [name for name in ADDED if content[name] == getattr(TrainConfig, name)]
        return {name: value for name, value in content.items() if name not in unset}

    def run_name(self) -> str:
        """Return the run's default name: steps, seed, and whatever differs from Duckling II and shapes the numbers."""
        parts = [f"steps-{self.steps}-seed-{self.seed}"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in NOT_IN_THE_NAME and value != field.default:
                values = value if isinstance(value, tuple) else (value,)
                if value is True:
                    parts.append(word(field.name))
                    continue
                text = "-".join(part if isinstance(part, str) else number_text(part) for part in values)
                parts.append("untied" if field.name == "tied" else f"{word(field.name)}-{text}")
        return "-".join(parts)


WORDS = {"n_layer": "layers", "n_embd": "width", "n_head": "heads", "n_positions": "ctx", "max_grad_norm": "clip",
         "run": "name"}  # fmt: skip
"""The flags whose names are not their field's or keyword's, without the dashes in front."""


def word(name: str) -> str:
    """Return what the user calls the setting `name`: its flag without the dashes in front."""
    return WORDS.get(name, name.replace("_", "-"))


def flag(name: str) -> str:
    """Return the flag that sets the field `name`."""
    return f"--{word(name)}"


_by_flag = False


@contextlib.contextmanager
def naming_flags() -> Iterator[None]:
    """Let errors name a setting by its flag, as the command's user knows it; else they name the library's keyword."""
    global _by_flag
    before, _by_flag = _by_flag, True
    try:
        yield
    finally:
        _by_flag = before


def named(name: str) -> str:
    """Return what an error calls the setting `name`: `--ctx` in the command, `n_positions` in the library."""
    return flag(name) if _by_flag and name not in WITHOUT_A_FLAG else name


def given(name: str, value: Any) -> str:
    """Return how the setting is given: `--ctx 64` in the command, `n_positions=64` in the library."""
    in_command = flag(name) if value is True else f"{flag(name)} {value}"
    return in_command if _by_flag else f"{name}={value!r}"


def number_text(value: float) -> str:
    """Return the shortest text of a number that says it exactly: six digits where they do."""
    rounded = f"{value:g}"
    return rounded if float(rounded) == value else repr(value)


def _check(name: str, value: Any, fine: bool, expected: str) -> None:
    if not fine:
        raise InputError(f"{named(name)} is {value}; it must be {expected}")
