"""An open experiment: everything that the seed's notebook sets up, under the seed's names, in one call.

    from duckling_train import duckling_ii

    lab = duckling_ii("artifacts")
    tracker = lab.train(400)

On a CPU, the losses and weights of the engine `reference`, which is the Trainer, are bitwise those of the seed's cells;
`lab.train` takes the fast engine unless told otherwise.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, DatasetInfo, Features, Split
from datasets.table import InMemoryTable
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from duckling_data.base.errors import InputError
from duckling_data.rows.layout import MAX_VOCAB, NARROW_VOCAB, fingerprint, schema
from duckling_data.tokens.mapping import TokenMapping
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.config import OF_THE_RECORD, TrainConfig
from duckling_train.data import PackedRows, fitting, open_workspace, refuse_short
from duckling_train.engines import FAST, REFERENCE, choose_engine, load_engine
from duckling_train.engines.base import Hook, Job
from duckling_train.engines.reference.callbacks import DropoutSeeds, LossTracker, ProgressLines, TrackerHook
from duckling_train.engines.reference.engine import CausalLMCollator, arguments_of
from duckling_train.model import build_model, resolve_device
from duckling_train.optimizers import optimizer_class
from duckling_train.runs.layout import locate
from duckling_train.runs.open import open_model
from duckling_train.runs.read import read_run
from duckling_train.runs.train import train
from duckling_train.settings import FIELDS

OF_A_RUN = (
    *OF_THE_RECORD,
    "arithmetic",
    "steps",
    "eval_steps",
    "eval_rows",
    "checkpoint_steps",
    "keep_checkpoints",
    "processes",
)
"""Settings of `duckling-train` alone; `train` is given the steps."""


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
    """The packed rows: `dataset[i]["input_ids"]` is int64[context], a NumPy array of live ids.

    With `mask_across_stories` also `dataset[i]["position"]`, each token's index in its own story.
    """
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
    workspace: Path
    """Where the data are."""

    packed: PackedRows
    """The rows as an engine takes them; those of `dataset`."""

    def __post_init__(self) -> None:
        self._rows, self._collator = self.dataset, self.collator  # what a run directory would record

    @property
    def W(self) -> torch.nn.Parameter:  # noqa: N802  # the field's name for it
        """The embedding matrix of the model as it is now, [vocabulary, width]: a parameter, not a copy."""
        return cast(torch.nn.Parameter, self.model.transformer.wte.weight)

    def make_training_args(
        self, num_steps: int, output_dir: str = "experiment", logging_steps: int | None = None, **extras: Any
    ) -> TrainingArguments:
        """Return the TrainingArguments of this experiment's settings for `num_steps` steps.

        `extras` are further keywords of that class and override the settings. The Trainer shows its progress. It makes
        the folder `output_dir`; a new one that is still empty when Python exits is removed. Raises InputError for a
        number out of range and where the device has no bf16.
        """
        logging_steps = self.config.logging_steps if logging_steps is None else logging_steps
        config = dataclasses.replace(self.config, steps=num_steps, logging_steps=logging_steps, checkpoint_steps=0)
        args = arguments_of(config, Path(output_dir), **{"disable_tqdm": False, **extras})
        if not (folder := Path(output_dir).absolute()).exists():
            atexit.register(_remove_empty, folder)
        return args

    def optimizer(self, args: TrainingArguments) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
        """Return what a Trainer needs as `optimizer_cls_and_kwargs`: None where that is the Trainer's own AdamW."""
        arguments = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
        config = self.config
        return optimizer_class(config.precision, config.seed, config.optimizer, self.model, **arguments)

    def train(
        self, num_steps: int, callbacks: Sequence[TrainerCallback] = (), *, run: str | None = None,
        overwrite: bool = False, **extras: Any,
    ) -> LossTracker:  # fmt: skip
        """Train `model` on `dataset` for `num_steps` steps, as the seed does, and return the logged losses.

        The engine is that of the settings. The fast one takes hooks as `callbacks` (`WRecorder`, or any `Hook`), and as
        `extras` fields of `TrainConfig`; with others, or a dataset or collator of one's own, auto takes the reference,
        the Trainer, whose `extras` are those of `make_training_args`. A second call continues from the weights of the
        first, with a fresh optimizer and schedule.

        `run` is the name of a run to write, as `duckling-train --name` does, to `runs/` in the workspace; `overwrite`
        replaces one that is there. All that it trains by is recorded: `extras` are then fields of `TrainConfig`,
        `callbacks` only watch (`WRecorder`, or any `Hook`), and model and dataset are as `duckling_ii` opened them.
        Raises InputError where one is not, and as `duckling-train` does.
        """
        if run is not None:
            return self._train_run(run, num_steps, callbacks, extras, overwrite=overwrite)
        for name in extras:
            if name in OF_A_RUN and name != "arithmetic":
                instead = "a Recorder among the callbacks" if name in OF_THE_RECORD else "no such keyword"
                raise InputError(f"{name} is a setting of a run: give run= the run's name, or {instead}")
        config = self._of_the_fast_engine(num_steps, callbacks, extras)
        if config is not None:
            tracker = LossTracker()
            watching = [callback for callback in callbacks if isinstance(callback, Hook)]
            hooks = [TrackerHook(tracker, num_steps), *watching]
            (ended,) = load_engine(FAST).fit([Job(config, self.model, self.packed, Path("unused"))], [hooks])
            if ended is not None:
                raise ended
            return tracker
        args = self.make_training_args(num_steps, **{"disable_tqdm": True, **extras})
        tracker, folder = LossTracker(), Path(args.output_dir or ".")
        is_new = not folder.exists()
        trainer = Trainer(
            model=self.model, args=args, train_dataset=self.dataset, data_collator=self.collator,
            callbacks=[tracker, ProgressLines(), *callbacks], optimizer_cls_and_kwargs=self.optimizer(args),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)  # it prints every log
        if self.config.dropout:
            trainer.add_callback(DropoutSeeds(args.seed))
        trainer.train()
        if is_new:
            _remove_empty(folder)
        return tracker

    def _of_the_fast_engine(
        self, num_steps: int, callbacks: Sequence[Any], extras: dict[str, Any]
    ) -> TrainConfig | None:
        """Return the config by which the fast engine trains, or None where it is the reference's to train.

        Raises InputError where it was asked for and lacks something.
        """
        lacks = [name for name in extras if name not in FIELDS]
        lacks += [type(callback).__name__ for callback in callbacks if not isinstance(callback, Hook)]
        own = {"dataset": self.dataset is self._rows, "collator": self.collator is self._collator}
        lacks += [f"another {name}" for name, same in own.items() if not same]
        if self.config.engine == FAST and lacks:
            raise InputError(f"the fast engine does not take {lacks[0]}: leave it out, or give engine='reference'")
        if self.config.engine == REFERENCE or lacks:
            return None
        config, _why = choose_engine(dataclasses.replace(self.config, steps=num_steps, **extras))
        if config.engine != FAST:
            return None
        try:
            load_engine(FAST).prove(config, self.packed, self.model)
        except InputError as error:
            if self.config.engine == FAST:
                raise
            print(f"engine reference: {str(error).rpartition(': ')[0]}")
            return None
        return config

    def _train_run(
        self, name: str, num_steps: int, callbacks: Sequence[Any], extras: dict[str, Any], *, overwrite: bool
    ) -> LossTracker:
        """Train a run of this name from the beginning, and take its weights."""
        for setting in extras:
            if setting not in FIELDS:
                raise InputError(f"{setting} is no field of TrainConfig, which run={name!r} records: leave one out")
        for callback in callbacks:
            if not isinstance(callback, Hook):
                kind = type(callback).__name__
                raise InputError(f"callback {kind} could change what run={name!r} records; give hooks, as WRecorder")
        config = dataclasses.replace(self.config, steps=num_steps, **extras)
        set_seed(config.seed)
        fresh, now = build_model(config).state_dict(), self.model.state_dict()
        same = fresh.keys() == now.keys() and all(torch.equal(fresh[key], now[key].cpu()) for key in fresh)
        if not same or self.dataset is not self._rows:
            what = "dataset is not the workspace's" if same else "model is not the untrained one of these settings"
            raise InputError(f"{what}, which run={name!r} records: open a fresh one with duckling_ii, or leave run out")
        run_dir = locate(self.workspace, None, name)
        train(config, self.workspace, run_dir, overwrite=overwrite, hooks=callbacks)
        self.model.load_state_dict(open_model(run_dir)[0].state_dict())
        record, tracker = read_run(run_dir), LossTracker()
        tracker.losses, tracker.steps = record.losses, record.steps
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
    return open_experiment(dataclasses.replace(config, device=resolve_device(config.device)), Path(workspace))[0]


def open_experiment(config: TrainConfig, workspace: Path) -> tuple[Experiment, dict[str, Any]]:
    """Return the experiment of a config, its device resolved, and what a run would record about its training data.

    Raises InputError for an unfit workspace.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    data = open_workspace(workspace, config)
    refuse_short(config, data)
    tokenizer = DucklingTokenizer(data.mapping, base=data.base)
    set_seed(config.seed)
    lab = Experiment(
        model=build_model(config), dataset=dataset_of(data.rows, config.n_positions, data.payload_sha256),
        collator=CausalLMCollator(mask_across_stories=config.mask_across_stories), tokenizer=tokenizer,
        token_mapping=data.mapping, dead_token_ids=tokenizer.dead_token_ids, device=config.device, config=config,
        workspace=workspace, packed=data.rows,
    )  # fmt: skip
    return lab, data.record()


def _remove_empty(folder: Path) -> None:
    """Remove a folder, unless something is in it or it is not there."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def dataset_of(rows: PackedRows, context: int, payload_sha256: str) -> Dataset:
    """Return checked rows as the Dataset that the seed loads, in the NumPy format. Their tokens are not copied.

    It has no folder: `load_from_disk` would also use any `cache-*.arrow` beside the rows, and write some.
    """
    vocabulary = NARROW_VOCAB if rows.rows.dtype == np.uint16 else MAX_VOCAB
    layout = schema(context, vocabulary, positions=rows.positions is not None)
    held: list[Any] = [rows.rows.chunks] if rows.positions is None else [rows.rows.chunks, rows.positions.chunks]
    columns = [
        pa.chunked_array(
            [pa.FixedSizeListArray.from_arrays(pa.array(chunk.reshape(-1)), type=kind) for chunk in chunks], kind
        )
        for chunks, kind in zip(held, layout.types, strict=True)
    ]
    table = InMemoryTable(pa.Table.from_arrays(columns, schema=layout))
    info = DatasetInfo(features=Features.from_arrow_schema(layout))
    named = fingerprint(payload_sha256, rows.positions_sha256)
    return Dataset(table, info=info, split=Split.TRAIN, fingerprint=named).with_format("numpy")
