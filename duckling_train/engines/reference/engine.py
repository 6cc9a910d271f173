"""The reference engine: the seed's training cells, run by the Hugging Face Trainer.

On a CPU its losses and weights are bitwise those of the seed's own cells on the same data with the same libraries: the
seed is set right before the model is built, the Trainer sets it again before the rows are shuffled, and the batches are
the same int64 tensors.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from duckling_data.base.errors import InputError, OutsideError
from duckling_train.config import TrainConfig, named
from duckling_train.data import COLUMN, POSITION, PackedRows
from duckling_train.engines.base import DivergedError, Hook, Job
from duckling_train.model import build_model, story_mask
from duckling_train.optimizers import optimizer_class
from duckling_train.precision import uses_autocast
from duckling_train.processes import is_main_process

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, TrainingArguments

    from duckling_train.engines.reference.trainer import DucklingTrainer

AS_THEY_ARE = ("logging_steps", "learning_rate", "warmup_steps", "weight_decay", "max_grad_norm", "seed", "data_seed",
               "report_to", "adam_epsilon")  # fmt: skip
"""The settings that TrainingArguments has under the same names."""
EVENTS = "TENSORBOARD_LOGGING_DIR"
"""Where transformers looks for the folder of TensorBoard's files."""


class CausalLMCollator:
    """The seed's collator over NumPy rows; with `mask_across_stories` a token attends only to its own story.

    >>> batch = CausalLMCollator()([experiment.dataset[0], experiment.dataset[1]])
    >>> batch["input_ids"].shape
    torch.Size([2, 512])
    """

    def __init__(self, *, mask_across_stories: bool = False) -> None:
        self.mask_across_stories = mask_across_stories

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `labels` (a copy), each int64[batch, context]. The model shifts the labels.

        With `mask_across_stories` also `attention_mask`, the `story_mask` of the positions. Raises InputError where the
        examples have none: a Trainer drops them unless `remove_unused_columns` is False.
        """
        rows = np.stack([example[COLUMN] for example in examples])
        input_ids = torch.from_numpy(rows.astype(np.int64))
        batch = {"input_ids": input_ids, "labels": input_ids.clone()}
        if self.mask_across_stories:
            if POSITION not in examples[0]:
                raise InputError(f"the examples have no {POSITION}: give the Trainer remove_unused_columns=False")
            batch["attention_mask"] = story_mask(np.stack([example[POSITION] for example in examples]))
        return batch


def make_training_args(
    num_steps: int, output_dir: str = "experiment", logging_steps: int = 10, **extras: Any
) -> TrainingArguments:
    """Return the seed's TrainingArguments; `extras` are further keywords of that class and override the seed's.

    bf16 is mixed precision over float32 weights; without an accelerator it needs `use_cpu=True`, given here. The
    library's own progress bar is off: the run has its own. Raises ValueError where the hardware has no bf16.

    >>> make_training_args(100, learning_rate=1e-3).max_steps
    100
    """
    from transformers import TrainingArguments

    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    seed_arguments: dict[str, Any] = {
        "output_dir": output_dir,
        "max_steps": num_steps,
        "per_device_train_batch_size": TrainConfig.batch_size,
        "learning_rate": TrainConfig.learning_rate,
        "weight_decay": TrainConfig.weight_decay,
        "max_grad_norm": TrainConfig.max_grad_norm,
        "bf16": True,
        "use_cpu": not accelerator,
        "optim": "adamw_torch",
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "logging_steps": logging_steps,
        "logging_first_step": True,
        "report_to": "none",
        "save_strategy": "no",
        "dataloader_num_workers": 0,
        "seed": TrainConfig.seed,
        "disable_tqdm": True,
    }
    return TrainingArguments(**(seed_arguments | extras))


def arguments_of(config: TrainConfig, output_dir: Path, **extras: Any) -> TrainingArguments:
    """Return the TrainingArguments of `config`, its device resolved; `extras` are further keywords and override these.

    Raises InputError where the device has no bf16.
    """
    constant = "constant_with_warmup" if config.warmup_steps else "constant"
    arguments: dict[str, Any] = {name: getattr(config, name) for name in AS_THEY_ARE} | {
        "num_steps": config.steps,
        "output_dir": str(output_dir),
        "per_device_train_batch_size": config.batch_size // config.processes,
        "lr_scheduler_type": constant if config.schedule == "constant" else config.schedule,
        "adam_beta1": config.betas[0],
        "adam_beta2": config.betas[1],
        "optim": "sgd" if config.optimizer == "sgd" else "adamw_torch",
        "bf16": uses_autocast(config.precision),
        "save_strategy": "no",  # checkpoints are a hook's
        "save_steps": config.checkpoint_steps or 1,
        "run_name": output_dir.name,
        "use_cpu": config.device == "cpu",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": config.device == "cuda",  # elsewhere it does nothing but warn
        "remove_unused_columns": False,  # none is unused; the check would copy each row's dict
        "logging_nan_inf_filter": False,  # it would replace a loss that is not finite by the mean of those before it
    }
    try:
        args = make_training_args(**(arguments | extras))
    except ValueError as error:
        raise InputError(f"the Trainer refuses these settings on {config.device}: {error}") from error
    if args.n_gpu > 1:
        args._n_gpu = 1  # the Trainer would split over every GPU and so multiply the batch size
    return args


class ReferenceEngine:
    """The seed's training cells: one job after the other, each a Trainer's run."""

    name = "reference"

    def checked(self, config: TrainConfig) -> TrainConfig:
        """Return `config`. Raises InputError where the device has no bf16, or accelerate would change the run."""
        foreign = sorted(name for name in os.environ if name.startswith("ACCELERATE_"))
        if foreign:
            raise InputError(f"{foreign[0]} is set in the environment and would change the run unrecorded: unset it")
        if config.compile == "yes":
            raise InputError(f"{named('compile')} is yes, which is the fast engine's: leave it out")
        if config.device != "cpu":  # which has bf16 in any case; the Trainer's libraries take seconds to import
            arguments_of(config, Path("run"))
        return config

    def build(self, config: TrainConfig) -> GPT2LMHeadModel:
        """Return transformers' own model."""
        from transformers import set_seed

        set_seed(config.seed)
        return build_model(config)

    def prove(self, config: TrainConfig, rows: PackedRows, model: Any = None) -> None:
        """Do nothing: it is the reference."""

    def fit(self, jobs: Sequence[Job], hooks: Sequence[Sequence[Hook]]) -> list[DivergedError | None]:
        """Train each job's model in place. The first process of several calls the hooks."""
        from accelerate import PartialState
        from transformers import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        ends = []
        for job, watching in zip(jobs, hooks, strict=True):
            with _events_in(job.run_dir / "tensorboard"):
                ends.append(_fit(job, watching if is_main_process() else ()))
        if PartialState().backend != "gloo":  # a group of gloo's ends with its process: see processes.py
            PartialState().destroy_process_group()
        return ends


ENGINE = ReferenceEngine()


def _fit(job: Job, hooks: Sequence[Hook]) -> DivergedError | None:
    """Train a job. Returns why it ended early, or None."""
    from transformers.trainer_callback import PrinterCallback

    from duckling_train.engines.reference.callbacks import DropoutSeeds
    from duckling_train.engines.reference.trainer import DucklingTrainer
    from duckling_train.engines.state import load_weights

    model, start, config = job.model, job.start, job.config
    if start is not None and start.step >= config.steps:  # the Trainer would train one step more
        load_weights(model, start.path)
        return None
    trainer = DucklingTrainer(
        job=job, hooks=hooks, args=arguments_of(config, job.run_dir),
        data_collator=CausalLMCollator(mask_across_stories=config.mask_across_stories),
        optimizer_cls_and_kwargs=optimizer_class(
            config.precision, config.seed, config.optimizer, model,
            lr=config.learning_rate, betas=config.betas, eps=config.adam_epsilon,
        ),
    )  # fmt: skip
    if config.dropout:
        trainer.add_callback(DropoutSeeds(config.seed))
    trainer.remove_callback(PrinterCallback)
    if start is not None and config.report_to == "tensorboard" and is_main_process():
        _purge_events(trainer, start.step)
    try:
        trainer.train(resume_from_checkpoint=str(start.path) if start is not None else None)
    except DivergedError as error:
        return error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != config.report_to:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        advice = f"mend that, or go on without it: --resume {job.run_dir} --report-to none"
        raise OutsideError(f"{named('report_to')} {config.report_to} failed: {reason}; {advice}") from error
    for name in ("forward", "_original_forward"):  # accelerate's autocast around the class's own forward
        model.__dict__.pop(name, None)
    return None


@contextlib.contextmanager
def _events_in(folder: Path) -> Iterator[None]:
    """Let TensorBoard's files of this run alone go to `folder`, unless the user says where they all go."""
    if EVENTS in os.environ:
        yield
        return
    os.environ[EVENTS] = str(folder)
    try:
        yield
    finally:
        del os.environ[EVENTS]


def _purge_events(trainer: DucklingTrainer, step: int) -> None:
    """Let TensorBoard forget what was sent after `step`: it comes again."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    trainer.remove_callback(TensorBoardCallback)
    writer = SummaryWriter(os.environ[EVENTS], purge_step=step + 1)
    trainer.add_callback(TensorBoardCallback(writer))
