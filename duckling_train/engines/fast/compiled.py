"""The parts of a step that C++ does faster than torch on a CPU (`cpp/`), compiled on the machine that trains.

A compilation takes seconds, once: what it made is kept in the user's cache, under a digest of the sources, the flags
and what the compiler says of itself and the processor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.files import flush, renamed
from duckling_data.base.progress import Reporter
from duckling_train.config import given, named
from duckling_train.engines.fast.arithmetic import NATIVE, Arithmetic

SOURCES = Path(__file__).parent / "cpp"
LEAST_BLOCK = 16
"""The smallest number of rows that `cpp/head.cpp` sums the probabilities of apart."""
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared")
POINTER, LONG, INT, BOOL = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_bool
SIGNATURES: dict[str, list[Any]] = {
    "attention": [POINTER, POINTER, BOOL, BOOL, *[LONG] * 4, *[POINTER] * 4, INT],
    "head": [POINTER, POINTER, BOOL, POINTER, BOOL, BOOL, *[LONG] * 3, *[POINTER] * 4, INT],
    "gelu": [POINTER, POINTER, BOOL, LONG, POINTER, INT],
}


def usable(arithmetic: str) -> bool:
    """Return whether the compiled parts can be had on this machine, have this arithmetic, and are thought to be faster.

    With AMX torch's own products of bf16 are several times as fast as those by AVX-512, which is what is compiled.
    """
    try:
        need(arithmetic)
    except InputError:
        return False
    return not (arithmetic == NATIVE and load().has_amx())


def need(arithmetic: str) -> None:
    """Raise InputError where the compiled parts cannot be had, or do not have this arithmetic."""
    without = f"give {given('compile', 'no')}"
    try:
        library = load()
    except (OSError, OutsideError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [type(error).__name__]
        reason = f"{named('compile')} is yes, and compiling fails ({said[0][:200]})"
        raise InputError(f"{reason}: install a C++ compiler (g++), or {without}") from error
    if arithmetic == NATIVE and not library.has_bf16():
        raise InputError(f"{named('compile')} is yes, and what it compiles has no bf16 for this processor: {without}")


@functools.cache
def load() -> ctypes.CDLL:
    """Return the library, compiled where it is not yet. Raises OSError, OutsideError or CalledProcessError."""
    command = [*shlex.split(os.environ.get("CXX", "c++")), *FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))]
    files = sorted(SOURCES.iterdir())
    about = _output([*command, "-E", "-dM", "-x", "c++", os.devnull])
    digest = hashlib.sha256("\0".join([*command, about, *(file.read_text() for file in files)]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "duckling"
    library = folder / f"fast-{digest[:32]}.so"
    if not library.exists():
        if sys.stderr.isatty():
            Reporter().say("compiling parts of the fast engine, once on this machine: some seconds")
        folder.mkdir(parents=True, exist_ok=True)
        with renamed(library) as made:
            _output([*command, *(str(file) for file in files if file.suffix == ".cpp"), "-o", str(made)])
            flush(made)
    opened = ctypes.CDLL(str(library))
    opened.has_bf16.restype = opened.has_amx.restype = BOOL
    for name, types in SIGNATURES.items():
        function = getattr(opened, name)
        function.argtypes, function.restype = types, None
    return opened


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _at(tensor: torch.Tensor | None) -> int | None:
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()


class CompiledAttention(torch.autograd.Function):
    """`CausalAttention`, with scores and gradients in blocks that stay in a core's cache."""

    @staticmethod
    def forward(
        ctx: Any, joined: torch.Tensor, heads: int, mask: torch.Tensor | None, arithmetic: Arithmetic
    ) -> torch.Tensor:
        """Return what `CausalAttention` does."""
        sequences, context, width = *joined.shape[:2], joined.shape[2] // 3
        out = joined.new_empty(sequences, context, width)
        logs = torch.empty(sequences, heads, context)
        ctx.shape = joined.dtype == torch.bfloat16, arithmetic.name == NATIVE, sequences, heads, context, width // heads
        joined, mask, threads = (
            joined.contiguous(),
            mask if mask is None else mask.contiguous(),
            torch.get_num_threads(),
        )
        ctx.save_for_backward(joined, mask, logs)
        load().attention(_at(joined), _at(mask), *ctx.shape, _at(out), _at(logs), None, None, threads)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient by `joined`."""
        joined, mask, logs = ctx.saved_tensors
        d_joined, threads = torch.empty_like(joined), torch.get_num_threads()
        d_out = d_out.contiguous()
        load().attention(_at(joined), _at(mask), *ctx.shape, None, _at(logs), _at(d_out), _at(d_joined), threads)
        return d_joined, None, None, None


class CompiledGelu(torch.autograd.Function):
    """GELU in one pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Return GELU of each number, in the dtype of `x`."""
        x, to = x.contiguous(), torch.empty_like(x)
        ctx.save_for_backward(x)
        load().gelu(_at(x), None, x.dtype == torch.bfloat16, x.numel(), _at(to), torch.get_num_threads())
        return to

    @staticmethod
    def backward(ctx: Any, d_y: torch.Tensor) -> torch.Tensor:
        """Return the gradient by `x`."""
        (x,), d_y = ctx.saved_tensors, d_y.contiguous()
        to = torch.empty_like(x)
        load().gelu(_at(x), _at(d_y), x.dtype == torch.bfloat16, x.numel(), _at(to), torch.get_num_threads())
        return to


class CompiledHead:
    """`Head`, with logits and gradients by them that stay in a core's cache."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic

    def __call__(
        self, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, d_weight: torch.Tensor,
        total: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return what `Head` does; `weight` is not rounded before."""
        (rows, width), vocabulary, threads = hidden.shape, len(weight), torch.get_num_threads()
        low_weight, low = weight.dtype == torch.bfloat16, self.arithmetic.low == torch.bfloat16
        native = self.arithmetic.name == NATIVE
        losses, d_hidden = torch.empty(rows), torch.empty(rows, width)
        by_weight = d_weight if d_weight.dtype == torch.float32 else torch.empty(d_weight.shape)
        totals = None if total is None else torch.zeros(-(-rows // LEAST_BLOCK), vocabulary)
        load().head(
            _at(hidden), _at(weight), low_weight, _at(targets), low, native, rows, vocabulary, width,
            _at(d_hidden), _at(by_weight), _at(losses), _at(totals), threads,
        )  # fmt: skip
        if by_weight is not d_weight:
            d_weight.copy_(by_weight)
        if total is not None and totals is not None:
            total += totals.sum(0)
        return losses.sum() / rows, d_hidden
