"""The embedding of a model, found in its safetensors by name and read in blocks of rows; the file stays on the disk.

The safetensors library checks a file's header, at most 100 MB, before anything is read of it, and maps the tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular
from duckling_data.base.records import read_record, short
from duckling_train.dynamics.rows import Float32, block_rows

INDEX = "model.safetensors.index.json"
INPUTS = (
    *("wte.weight", "shared.weight", "embed_tokens.weight", "word_embeddings.weight", "tok_embeddings.weight"),
    *("embed_in.weight", "token_embedding.weight", "token_embeddings.weight", "embeddings.weight", "embedding.weight"),
)
"""How the name of an input embedding ends, in the order in which they are looked for."""
OUTPUTS = ("lm_head.weight", "embed_out.weight")
"""How the name of an output matrix ends, besides the whole name OUTPUT."""
OUTPUT = "output.weight"
DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "float32"}
SEPARATE, EQUAL, ABSENT, SKIPPED = "separate", "equal to the input", "absent (tied)", "not looked for"
CANDIDATES = 8
"""How many tensors a refusal names, at most."""
ADVICE = "download or write the file again"


class _Index(msgspec.Struct):
    """What is read of `model.safetensors.index.json`."""

    weight_map: dict[str, str]
    """The file of each tensor."""


@dataclass(frozen=True)
class Matrix:
    """A matrix of weights in a file: `matrix[a:b]` and `matrix[ids]` are rows as float32, exactly as stored."""

    file: Path
    name: str
    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and their width."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        """How the weights are stored: bf16, fp16 or float32."""
        return DTYPES[self.tensor.dtype]

    def __getitem__(self, index: Any) -> Float32:
        rows: Float32 = self.tensor[index].float().numpy()
        return rows

    def same(self, other: Matrix) -> bool:
        """Return whether both hold the same bits."""
        if (self.tensor.dtype, self.shape) != (other.tensor.dtype, other.shape):
            return False
        step = block_rows(self.shape[1])
        whole = torch.int32 if self.tensor.dtype == torch.float32 else torch.int16
        return all(
            torch.equal(self.tensor[first : first + step].view(whole), other.tensor[first : first + step].view(whole))
            for first in range(0, self.shape[0], step)
        )


@dataclass(frozen=True)
class Found:
    """A model's embedding."""

    input: Matrix
    output: Matrix | None
    """Where there is one that differs from it in a bit."""
    kind: str
    """What there is of an output matrix: SEPARATE, EQUAL in every bit, ABSENT, as where it is tied, or SKIPPED."""


def find(place: Path, tensor: str | None = None) -> Found:
    """Return the embedding in a safetensors file, or in a directory with one or with an index of several.

    `tensor` is the name of a matrix to take instead. Raises InputError for a file that cannot be read, a link or index
    that leads out of the directory, a matrix of another dtype, and, naming what there is, where none is found.
    """
    files = _files(place)
    if tensor is not None:
        if tensor not in files:
            raise _refusal(place, files, f"has no tensor {short(tensor)}")
        return Found(_matrix(files[tensor], tensor), None, SKIPPED)
    name = _named(place, files, INPUTS, "input embedding")
    if name is None:
        raise _refusal(place, files, "has no tensor with the name of an input embedding")
    embedding = _matrix(files[name], name)
    output = OUTPUT if OUTPUT in files else _named(place, files, OUTPUTS, "output matrix")
    if output is None:
        return Found(embedding, None, ABSENT)
    head = _matrix(files[output], output)
    return Found(embedding, None, EQUAL) if embedding.same(head) else Found(embedding, head, SEPARATE)


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file of a folder. Raises InputError where it leads out of it, by its name or as a link."""
    try:
        path = folder / name
        path.exists()  # raises for a name that no file can have
        if path.resolve().is_relative_to(folder.resolve()):
            return path
        raise InputError(f"{path}: leads out of {folder}; expected a file in it; copy it there, if it is the right one")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: {short(name)} cannot be a file; {ADVICE}") from error


def _files(place: Path) -> Mapping[str, Path]:
    """Return the file of each tensor by the tensor's name."""
    if not place.is_dir():
        return dict.fromkeys(_names(place), place)
    if (index := inside(place, INDEX)).exists():
        files = read_record(index, _Index, ADVICE).weight_map
        paths = {file: inside(place, file) for file in {*files.values()}}
        return {name: paths[file] for name, file in files.items()}
    found = sorted(place.glob("*.safetensors"))
    if len(found) != 1:
        here = ", ".join(path.name for path in found[:CANDIDATES]) or "none"
        raise InputError(f"{place}: {len(found)} safetensors files ({here}), expected one, or {INDEX}; name the file")
    file = inside(place, found[0].name)
    return dict.fromkeys(_names(file), file)


def _named(place: Path, names: Collection[str], endings: Collection[str], what: str) -> str | None:
    """Return the name with the first of the endings that one has. Raises InputError where several have it."""
    for ending in endings:
        found = sorted(name for name in names if name == ending or name.endswith(f".{ending}"))
        if len(found) > 1:
            shown = ", ".join(map(short, found[:CANDIDATES]))
            raise InputError(f"{place}: {len(found)} tensors may be the {what} ({shown}); choose with --tensor NAME")
        if found:
            return found[0]
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises InputError in one line, also for what the library raises while it is read."""
    try:
        open_regular(path).close()  # a pipe would wait
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: not a safetensors file that can be read ({reason}); {ADVICE}") from error


def _names(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.keys())


def _matrix(path: Path, name: str) -> Matrix:
    with _opened(path) as file:
        if name not in file.keys():  # noqa: SIM118 - it is no dict
            raise InputError(f"{path}: has no tensor {short(name)}, which its index says is there; {ADVICE}")
        shape, stored = file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()
        tensor = file.get_tensor(name) if len(shape) == 2 and 0 not in shape else None
    if tensor is None or tensor.dtype not in DTYPES:
        expected = "a matrix of BF16, F16 or F32"
        raise InputError(f"{path}: tensor {short(name)} is {stored} {shape}, expected {expected}; name another")
    return Matrix(path, name, tensor)


def _refusal(place: Path, files: Mapping[str, Path], fault: str) -> InputError:
    """Return a refusal that names the matrices that there are, those with most rows first."""
    shapes: dict[str, list[int]] = {}
    for path in sorted({*files.values()}):
        if path.exists():  # another part may not be needed, and not be there
            with _opened(path) as file:
                shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    found = sorted((name for name in shapes if len(shapes[name]) == 2), key=lambda name: (-shapes[name][0], name))
    shown = ", ".join(f"{short(name)} {shapes[name]}" for name in found[:CANDIDATES]) or "none"
    more = f" and {len(found) - CANDIDATES:,} more" if len(found) > CANDIDATES else ""
    return InputError(f"{place}: {fault}; choose a matrix with --tensor NAME: {shown}{more}")
