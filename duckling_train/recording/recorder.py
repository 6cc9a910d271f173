"""Records rows of the embedding while a run trains: the hook copies them, a thread of its own codes and writes them."""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from queue import Queue

import numpy as np
import torch

from duckling_data.base.errors import DucklingError, InputError
from duckling_data.base.progress import Reporter
from duckling_train.config import RECORDED
from duckling_train.engines.base import GRADIENT_PARTS, HIDDEN, PROBABILITIES, DivergedError, Hook, StepView
from duckling_train.ids import ids_below, read_ids
from duckling_train.optimizers import MOMENTS
from duckling_train.recording.codec import BLOCK, LEVEL, LINE, ORDER, Array, bf16_bits
from duckling_train.recording.layout import FORMAT, Layout, shard_steps
from duckling_train.recording.writer import Writer

Tensors = dict[str, torch.Tensor]

WAITING_BYTES, MOST_WAITING = 1 << 26, 16
"""What waits for the writer at most: bytes, and steps. Then training waits."""
NEEDS = {"grad": GRADIENT_PARTS, "h_mean": HIDDEN, "p_dead": PROBABILITIES}
MATRICES = {"W": ("W",), "grad": ("grad_in", "grad_out"), "exp_avg": ("exp_avg",), "exp_avg_sq": ("exp_avg_sq",)}
"""What is recorded of each tensor that has a row for each of the vocabulary's."""


def rows_of(record: str, vocabulary: int, dead: Collection[int]) -> list[int]:
    """Return the rows that a record is of, rising: none, dead, all, or ids as `6144:6200,7`.

    Raises InputError for dead where there are none, and for ids that are not in the vocabulary.
    """
    if record == "none":
        return []
    if record == "all":
        return list(range(vocabulary))
    if record != "dead":
        return ids_below(read_ids(record, "record"), vocabulary, "record")
    if not dead:
        raise InputError("record is dead, and the vocabulary has no dead ids: give all, or ids")
    return sorted(dead)


def layout_of(
    rows: int, width: int, tensors: Collection[str], *, bf16_weights: bool, as_bf16: bool, every: int, run: str
) -> Layout:
    """Return the layout of a record of so many rows."""
    codings: dict[str, str] = {}
    for name in (name for name in RECORDED if name in tensors and name in MATRICES):
        narrow = as_bf16 or (bf16_weights and name in ("W", "grad"))
        codings |= dict.fromkeys(MATRICES[name], ORDER if narrow else LEVEL if name == "grad" else LINE)
    vectors = [name for name in RECORDED if name in tensors and name not in MATRICES]
    dtype = "bfloat16" if codings["W"] == ORDER else "float32"
    made = Layout(FORMAT, run, every, rows, width, dtype, codings, vectors, BLOCK, BLOCK)
    return Layout(FORMAT, run, every, rows, width, dtype, codings, vectors, BLOCK, shard_steps(made.step_bytes()))


class Recording(Hook):
    """Records rows of W, and more where asked for, at step 0 and every `every` steps.

    `dead` are the dead ids, `rows` the rows to record: dead, all, or ids as in `6144:6200,7`. `tensors`:

    - W, the embedding after the step, and exp_avg, exp_avg_sq, AdamW's moments of it (0 at step 0);
    - grad, the step's gradient of W after clipping, as two: grad_in, by the embedding of tokens, and grad_out, by the
      softmax; h_mean, the mean of the final hidden states over the step's predicting positions; p_dead, each recorded
      row's mean probability over them, under the weights before the step. All are 0 at step 0.

    `dtype` is native, or bf16, to which matrices are then rounded. Moments are else recorded as float32. Where the
    record cannot be written, `on_error` stop raises at the next step what happened, and continue says it in a line and
    records no more. Recording changes no number of the run. A number that is not finite raises DivergedError.

    Raises InputError where `path` is there already, unless `replace`.
    """

    def __init__(
        self, path: Path | str, dead: Collection[int], rows: str = "dead", *, every: int = 1,
        tensors: Collection[str] = ("W",), dtype: str = "native", on_error: str = "stop", run: str = "",
        replace: bool = False, reporter: Reporter | None = None,
    ) -> None:  # fmt: skip
        self.needs = frozenset(NEEDS[name] for name in tensors if name in NEEDS)
        for name, given, known in (("dtype", dtype, ("native", "bf16")), ("on_error", on_error, ("stop", "continue"))):
            if given not in known:
                raise InputError(f"{name} is {given!r}; it must be {' or '.join(known)}")
        if every < 1 or "W" not in tensors or not set(tensors) <= set(RECORDED):
            raise InputError(f"every is {every}, tensors {', '.join(tensors)}; expected 1 or more, and W with any of "
                             f"{', '.join(RECORDED[1:])}")  # fmt: skip
        self.path, self.dead, self.rows, self.every = Path(path), frozenset(dead), rows, every
        self.tensors, self.dtype, self.on_error = tuple(tensors), dtype, on_error
        self._run, self._replace, self._reporter = run, replace, reporter or Reporter()
        self._queue: Queue[tuple[int, Tensors] | threading.Event | None] = Queue(1)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._off = False

    def needs_at(self, step: int) -> frozenset[str]:
        """Return what it needs of the steps that it records."""
        return frozenset() if step % self.every else self.needs

    def begin(self, view: StepView) -> None:
        """Record step 0, or take up the record of a run that is resumed."""
        vocabulary, width = view.W.shape
        ids = rows_of(self.rows, vocabulary, self.dead)
        layout = layout_of(
            len(ids), width, self.tensors, bf16_weights=view.W.dtype == torch.bfloat16, as_bf16=self.dtype == "bf16",
            every=self.every, run=self._run,
        )  # fmt: skip
        contiguous = ids == list(range(ids[0], ids[-1] + 1))
        self._rows = slice(ids[0], ids[-1] + 1) if contiguous else torch.tensor(ids, device=view.W.device)
        self._error, self._off = None, False
        writer = Writer(self.path, layout)
        self._layout = layout
        try:
            self._open(writer, view.step, ids)
        except DucklingError as error:
            if not view.step:
                raise
            self._error = error
            self._refuse()
            return
        waiting = max(2, min(MOST_WAITING, WAITING_BYTES // layout.step_bytes()))
        self._queue = Queue(waiting)
        self._thread = threading.Thread(target=self._work, args=(writer,), name="record", daemon=True)
        self._thread.start()
        if not view.step:
            self._queue.put((0, self._first(view)))

    def _open(self, writer: Writer, step: int, ids: list[int]) -> None:
        if step:
            writer.go_on(step)
            return
        if not self._replace and self.path.exists():
            raise InputError(f"{self.path} is there already: give the record another path")
        writer.create(np.array(ids, np.int64), np.isin(ids, list(self.dead)))

    def step(self, view: StepView) -> None:
        """Copy what is recorded of the step, if this is one to record. Waits while the writer is behind."""
        self._refuse()
        if view.step % self.every == 0 and not self._off:
            self._queue.put((view.step, self._copied(view)))

    def save(self) -> None:
        """Wait until all steps so far are on disk."""
        if self._thread is not None and not self._off:
            written = threading.Event()
            self._queue.put(written)
            written.wait()
        self._refuse()

    def end(self, view: StepView) -> None:
        """Write what is left."""
        self.close()
        self._refuse()

    def close(self) -> None:
        """Write what is left and end the thread; an error waits for `step`, `save` or `end`."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _refuse(self) -> None:
        """Raise what went wrong in the thread, or say it."""
        error, self._error = self._error, None
        if error is None:
            return
        self._off = True  # later steps are not recorded
        if self.on_error == "stop" or isinstance(error, DivergedError):
            raise error
        self._reporter.say(f"{error} The training goes on without its record.")

    def _work(self, writer: Writer) -> None:
        """Code and write what the queue holds, until None; after an error, only empty it."""
        going = True
        while (item := self._queue.get()) is not None:
            try:
                if going and isinstance(item, threading.Event):
                    writer.flush()
                elif going and not isinstance(item, threading.Event):
                    step, tensors = item
                    writer.add(step, {name: self._array(name, tensor) for name, tensor in tensors.items()})
            except Exception as error:
                self._error, going = error, False
                if isinstance(error, DivergedError):  # the steps before are whole
                    with suppress(DucklingError):
                        writer.close()
            if isinstance(item, threading.Event):
                item.set()
        if going:
            try:
                writer.close()
            except Exception as error:
                self._error = error

    def _first(self, view: StepView) -> Tensors:
        """Return what is recorded at step 0: W, and zeros."""
        layout, device = self._layout, view.W.device
        made = {name: torch.zeros(layout.rows, layout.width, device=device) for name in layout.codings}
        made |= {name: torch.zeros(layout.vector(name), device=device) for name in layout.vectors}
        return made | {"W": view.W[self._rows].clone()}

    def _copied(self, view: StepView) -> Tensors:
        """Return copies of what is recorded of a step, on the device of the weights: the writer fetches them."""
        made = {"W": view.W}
        if "grad" in self.tensors:
            assert view.gradient_parts is not None
            made["grad_in"], made["grad_out"] = view.gradient_parts
        for number, name in enumerate(MOMENTS):
            if name in self.tensors:
                if view.moments is None:
                    raise InputError(f"tensors has {name}, and the optimizer keeps none: leave it out")
                made[name] = view.moments[number]
        rows = {name: tensor.detach()[self._rows].clone() for name, tensor in made.items()}
        if "h_mean" in self.tensors:
            assert view.hidden is not None
            rows["h_mean"] = view.hidden[:, :-1].float().mean((0, 1))
        if "p_dead" in self.tensors:
            assert view.probabilities is not None
            rows["p_dead"] = view.probabilities[self._rows].clone()
        return rows

    def _array(self, name: str, tensor: torch.Tensor) -> Array:
        """Return a tensor as the writer takes it."""
        narrow = self._layout.codings.get(name) == ORDER
        if narrow and tensor.dtype == torch.bfloat16:
            return tensor.cpu().view(torch.int16).numpy().view(np.uint16)
        values: Array = tensor.cpu().float().numpy()
        return bf16_bits(values) if narrow else values
