"""A model of a CUDA graph for the CPU: it records the operations of some work with their tensors, and repeats them.

As of a graph, a capture computes nothing, memory stays where it was, Python code does not run again, and Python numbers
are those of the capture. What a capture forbids is refused: a result that the host waits for, a shape that depends on
values, a constant made on the host, random numbers. A copy between host and device looks like any other on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

FORBIDDEN = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded}
HOST = ("lift_fresh", "scalar_tensor", "pin_memory", "is_nonzero")


class ForbiddenError(Exception):
    """A CUDA graph cannot capture this."""


class RecordedGraphs:
    """Graphs on the CPU, as `engines.fast.graph.Graphs`."""

    def __init__(self) -> None:
        self.replays = self.captures = 0

    def warm(self, work: Callable[[], None]) -> None:
        """Do the work."""
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work. Returns what repeats it. Raises ForbiddenError for what a graph cannot capture."""
        self.captures += 1
        with Recorder() as recorder:
            work()
        recorder.undo()

        def replay() -> None:
            recorder.replay()
            self.replays += 1

        return replay


class Recorder(TorchDispatchMode):
    """Records each operation."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], Any, Any, list[torch.Tensor]]] = []
        self._made: dict[int, torch.Tensor] = {}
        """What the work made, by the place of its memory; kept, so that nothing else comes to the same place."""
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """What else it wrote to, and the values that it had."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and keep it with its tensors."""
        by_number = func is torch.ops.aten.index.Tensor and not any(at.dtype == torch.bool for at in tensors(args[1]))
        if func.overloadpacket.__name__ in HOST or (FORBIDDEN & {*func.tags} and not by_number):
            raise ForbiddenError(f"a CUDA graph cannot capture {func}")
        kept_args, kept_kwargs = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs or {}))
        given = {argument.name: value for argument, value in zip(func._schema.arguments, kept_args, strict=False)}
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tensors((given | kept_kwargs).get(argument.name)):
                    if place(tensor) not in self._made:
                        self._before.setdefault(place(tensor), (whole(tensor), whole(tensor).clone()))
        result = func(*args, **(kwargs or {}))
        results = [tensor.detach() for tensor in tensors(result)]
        known = {place(tensor) for tensor in tensors((kept_args, kept_kwargs))}
        self._made |= {place(tensor): tensor for tensor in results if place(tensor) not in known}
        self._calls.append((func, kept_args, kept_kwargs, results))
        return result

    def undo(self) -> None:
        """Make the capture as if nothing had been computed: old values where it wrote, none in what it made."""
        for tensor, before in self._before.values():
            tensor.copy_(before)
        for tensor in self._made.values():
            whole(tensor).fill_(float("nan") if tensor.is_floating_point() else 0)

    def replay(self) -> None:
        """Do all operations again on the same tensors; what one made is written to the same place."""
        with torch.no_grad():
            for func, args, kwargs, results in self._calls:
                for into, made in zip(results, tensors(func(*args, **kwargs)), strict=True):
                    if place(into) != place(made):
                        into.copy_(made)


def tensors(tree: Any) -> list[torch.Tensor]:
    """Return the tensors in nested lists and the like."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def place(tensor: torch.Tensor) -> int:
    """Return where a tensor's memory is."""
    return tensor.untyped_storage().data_ptr()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor's memory as a tensor of one dimension."""
    return torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
