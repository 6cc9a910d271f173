"""An open experiment: everything that the seed's notebook sets up, under the seed's names, in one call.

    from duckling_train import duckling_ii

    lab = duckling_ii("artifacts")
    tracker = lab.train(400)

On a CPU, the losses and weights are bitwise those of the seed's cells, by `lab.train` or a Trainer of one's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch
from datasets import Dataset, DatasetInfo, Features, Split
from datasets.table import InMemoryTable
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from duckling_data.base.errors import InputError
from duckling_data.rows.layout import COLUMN, schema
from duckling_data.tokens.mapping import TokenMapping
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows, fitting, open_workspace
from duckling_train.engines.reference.callbacks import DropoutSeeds, LossTracker, ProgressLines
from duckling_train.engines.reference.engine import CausalLMCollator, arguments_of
from duckling_train.model import build_model, resolve_device
from duckling_train.optimizers import optimizer_class

OF_A_RUN = ("engine", "steps", "eval_steps", "eval_rows", "checkpoint_steps", "keep_checkpoints", "processes")
"""Settings of `duckling-train` alone: here the Trainer trains, and `train` is given the steps."""


@dataclass
class Experiment:
    """What `duckling_ii` opens: the seed's names as attributes. Training changes `model` in place.

    >>> experiment = duckling_ii("artifacts")
    >>> experiment.W.shape, len(experiment.dead_token_ids)
    (torch.Size([8192, 128]), 2048)
    """

    model: GPT2LMHeadModel
    """The model, untrained, on the CPU; a Trainer moves it to `device`."""
    dataset: Dataset
    """The packed rows: `dataset[i]["input_ids"]` is int64[context], a NumPy array of live ids."""
    collator: CausalLMCollator
    """Makes a batch of rows: `input_ids` and `labels`, int64[batch, context]."""
    tokenizer: DucklingTokenizer
    """Text to compact ids and back: `encode`, `decode`."""
    token_mapping: TokenMapping
    """The content of `token_mapping.json`."""
    dead_token_ids: set[int]
    """The ids that no token has: 6,144 to 8,191."""
    device: str
    """Where a Trainer trains: mps, cuda or cpu."""
    config: TrainConfig
    """Every setting, the device resolved."""

    @property
    def W(self) -> torch.nn.Parameter:  # noqa: N802  # the field's name for it
        """The embedding matrix of the model as it is now, [vocabulary, width]: a parameter, not a copy."""
        return cast(torch.nn.Parameter, self.model.transformer.wte.weight)

    def make_training_args(
        self, num_steps: int, output_dir: str = "experiment", logging_steps: int | None = None, **extras: Any
    ) -> TrainingArguments:
        """Return the TrainingArguments of this experiment's settings for `num_steps` steps.

        `extras` are further keywords of that class and override the settings. The Trainer shows its progress and leaves
        `output_dir` empty. Raises InputError for a number out of range and where the device has no bf16.
        """
        logging_steps = self.config.logging_steps if logging_steps is None else logging_steps
        config = dataclasses.replace(self.config, steps=num_steps, logging_steps=logging_steps, checkpoint_steps=0)
        return arguments_of(config, Path(output_dir), **{"disable_tqdm": False, **extras})

    def optimizer(self, args: TrainingArguments) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
        """Return what a Trainer needs as `optimizer_cls_and_kwargs`: None where that is the Trainer's own AdamW."""
        arguments = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
        config = self.config
        return optimizer_class(config.precision, config.seed, config.optimizer, self.model, **arguments)

    def train(self, num_steps: int, callbacks: Sequence[TrainerCallback] = (), **extras: Any) -> LossTracker:
        """Train `model` on `dataset` for `num_steps` steps, as the seed does, and return the logged losses.

        `extras` are those of `make_training_args`. A second call continues from the weights of the first, with a fresh
        optimizer and schedule.
        """
        args = self.make_training_args(num_steps, **{"disable_tqdm": True, **extras})
        tracker = LossTracker()
        trainer = Trainer(
            model=self.model, args=args, train_dataset=self.dataset, data_collator=self.collator,
            callbacks=[tracker, ProgressLines(), *callbacks], optimizer_cls_and_kwargs=self.optimizer(args),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)  # it prints every log
        if self.config.dropout:
            trainer.add_callback(DropoutSeeds(args.seed))
        trainer.train()
        return tracker

    def __repr__(self) -> str:
        config, dead = self.config, len(self.dead_token_ids)
        return (
            f"Duckling II on {self.device}: {config.parameters:,} parameters, {len(self.dataset):,} rows of "
            f"{config.n_positions} tokens, {config.vocab_size - dead:,} live and {dead:,} dead ids, seed {config.seed}"
        )


def duckling_ii(workspace: str | Path = "artifacts", **settings: Any) -> Experiment:
    """Open a workspace's two files and build the untrained model. The defaults are Duckling II's.

    `settings` are fields of `TrainConfig`, such as `learning_rate=1e-3`, `seed=7` or `device="cpu"`. Raises InputError
    for one that is unknown, unfit or means nothing here, an absent device, and an unfit workspace.

    >>> duckling_ii("artifacts", n_layer=4, seed=7)
    Duckling II on ...: 1,907,456 parameters, ... rows of 512 tokens, 6,144 live and 2,048 dead ids, seed 7
    """
    known = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in OF_A_RUN]
    for name in settings:
        if name in OF_A_RUN:
            instead = "give the number to train or make_training_args" if name == "steps" else "it is duckling-train's"
            raise InputError(f"{name} is no setting of an open experiment: {instead}")
        if name not in known:
            raise InputError(f"{name} is an unknown setting; known are {', '.join(known)}")
    config = TrainConfig(**fitting(Path(workspace)) | settings)
    config = dataclasses.replace(config, device=resolve_device(config.device))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    data = open_workspace(Path(workspace), config)
    tokenizer = DucklingTokenizer(data.mapping)
    set_seed(config.seed)
    return Experiment(
        model=build_model(config), dataset=dataset_of(data.rows, config.n_positions, data.payload_sha256),
        collator=CausalLMCollator(), tokenizer=tokenizer, token_mapping=data.mapping,
        dead_token_ids=tokenizer.dead_token_ids, device=config.device, config=config,
    )  # fmt: skip


def dataset_of(rows: PackedRows, context: int, payload_sha256: str) -> Dataset:
    """Return checked rows as the Dataset that the seed loads, in the NumPy format. Their tokens are not copied.

    It has no folder: `load_from_disk` would also use any `cache-*.arrow` beside the rows, and write some.
    """
    layout = schema(context)
    kind = layout.field(COLUMN).type
    arrays = [pa.FixedSizeListArray.from_arrays(pa.array(chunk.reshape(-1)), type=kind) for chunk in rows.rows.chunks]
    table = InMemoryTable(pa.Table.from_arrays([pa.chunked_array(arrays, kind)], schema=layout))
    info = DatasetInfo(features=Features.from_arrow_schema(layout))
    return Dataset(table, info=info, split=Split.TRAIN, fingerprint=payload_sha256[:16]).with_format("numpy")
