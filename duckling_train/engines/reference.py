"""The reference engine: the seed's training cells, run by the Hugging Face Trainer.

On a CPU its losses and weights are bitwise those of the seed's own cells on the same data with the same library
versions. Two things keep that true: the seed is set right before the model is built, as in the notebook, and the
Trainer sets it again before the rows are shuffled; and the batches are the same int64 tensors, made without Python
lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from duckling_data.errors import InputError
from duckling_train.config import TrainConfig
from duckling_train.data import COLUMN, PackedRows


class CausalLMCollator:
    """The seed's collator over NumPy rows."""

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `labels` (a copy), each int64[batch, context]. The model shifts the labels."""
        rows = np.stack([example[COLUMN] for example in examples])
        input_ids = torch.from_numpy(rows.astype(np.int64))
        return {"input_ids": input_ids, "labels": input_ids.clone()}


def make_training_args(
    num_steps: int, output_dir: str = "experiment", logging_steps: int = 10, **extras: Any
) -> TrainingArguments:
    """Return the seed's TrainingArguments; `extras` are further keywords of that class and override the seed's.

    bf16 is mixed precision over float32 weights; without an accelerator it needs `use_cpu=True`, given here. The
    library's own progress bar is off: the run has its own. Raises ValueError where the hardware has no bf16.
    """
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


def arguments_of(config: TrainConfig, output_dir: Path) -> TrainingArguments:
    """Return the TrainingArguments of `config`, its device resolved. Raises InputError where the device has no bf16."""
    try:
        args = make_training_args(
            config.steps,
            output_dir=str(output_dir),
            logging_steps=config.logging_steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
            use_cpu=config.device == "cpu",
            dataloader_pin_memory=config.device == "cuda",  # elsewhere it does nothing but warn
            remove_unused_columns=False,  # there is one column; the check would copy each row's dict
        )
    except ValueError as error:
        raise InputError(f"the Trainer refuses these settings on {config.device}: {error}") from error
    if args.n_gpu > 1:
        args._n_gpu = 1  # the Trainer would split over every GPU and so multiply the batch size
    return args


def train(
    model: GPT2LMHeadModel,
    rows: PackedRows,
    config: TrainConfig,
    output_dir: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train `model` in place for `config.steps` steps on `rows`. Writes nothing itself: callbacks see the losses.

    `output_dir` is the run directory, which the Trainer wants to exist. Raises InputError as `arguments_of` does.
    """
    trainer = Trainer(
        model=model,
        args=arguments_of(config, output_dir),
        train_dataset=rows,
        data_collator=CausalLMCollator(),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
