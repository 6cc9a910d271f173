"""A run's model, opened for `generate`, `verify`, a notebook or a script."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckling_data.base.errors import InputError
from duckling_data.base.records import Count, decode, read_record
from duckling_train.runs.layout import AGAIN, CONFIG, MODEL, read_manifest
from duckling_train.runs.read import check_written

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from duckling_data.tokens.tokenizer import DucklingTokenizer
    from duckling_train.gpt2 import Gpt2

MODEL_FILE = re.compile(
    r"((generation_|tokenizer_)?config|token_mapping|base_tokenizer|special_tokens_map|added_tokens|model\.safetensors\.index)\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|README\.md"
)
"""The files of a model's directory."""
TENSORS = "model*.safetensors"
NO_MODEL = (OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What transformers and torch raise over settings and weights that make no model."""


def open_model(run_dir: Path) -> tuple[GPT2LMHeadModel, DucklingTokenizer]:
    """Return a run's model, on the CPU in the dtype of its weights, and its tokenizer.

    Raises InputError for a run that has no model yet and for a damaged one.
    """
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it warns of is refused here
    place = model_directory(run_dir)
    with _one_line(place):
        opened: Any = GPT2LMHeadModel.from_pretrained(
            str(place), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model, found = opened
        # transformers would draw what is missing at random, and leave out what is too many.
        if wrong := sorted({*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]}):
            raise ValueError(f"its weights are not those of its {CONFIG}: {wrong[0]}")
        return model, _tokenizer(place)


def open_plain(run_dir: Path) -> tuple[Gpt2, DucklingTokenizer]:
    """Return the same as a Gpt2: transformers' models are not imported, which takes seconds. Raises as `open_model`."""
    from safetensors.torch import load_file

    from duckling_train.gpt2 import config_of, gpt2_of

    place = model_directory(run_dir)
    with _one_line(place):
        weights = {name: tensor for path in sorted(place.glob(TENSORS)) for name, tensor in load_file(path).items()}
        model, tokenizer = (
            gpt2_of(config_of(read_record(place / CONFIG, dict[str, Any], AGAIN)), weights),
            _tokenizer(place),
        )
        model.end = tokenizer.eos_token_id
        return model, tokenizer


def _tokenizer(place: Path) -> DucklingTokenizer:
    from duckling_data.tokens.tokenizer import DucklingTokenizer

    opened: DucklingTokenizer = DucklingTokenizer.from_pretrained(str(place), local_files_only=True)
    return opened


@contextlib.contextmanager
def _one_line(place: Path) -> Iterator[None]:
    """Turn what transformers and torch raise over a model that is none into an InputError."""
    from safetensors import SafetensorError

    try:
        yield
    except (*NO_MODEL, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{place} cannot be opened ({reason}): {AGAIN}") from error


def model_directory(run_dir: Path) -> Path:
    """Return the directory of the run's model, for `from_pretrained`.

    Raises InputError where the run has none yet, where a finished run's model is not the one that it wrote, and where
    the directory holds more than a model's weights, settings and vocabulary, such as a pickle or code.
    """
    place, manifest = run_dir / MODEL, read_manifest(run_dir)
    if not place.is_dir() and manifest is None:
        raise InputError(f"{run_dir} has no model yet, as it is not finished: duckling-train --resume {run_dir}")
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        # What transformers would load besides: a pickle, code, an adapter of another model.
        if not MODEL_FILE.fullmatch(path.name) or not path.is_file() or path.resolve().parent != place.resolve():
            raise InputError(f"{path} is nothing that a run writes: remove it")
    check_written(run_dir, manifest, (MODEL,))
    _check_model_size(place)
    return place


def _check_model_size(place: Path) -> None:
    """Raise InputError where the model's settings ask for more parameters than its weights can hold."""
    path = place / CONFIG
    if not path.is_file():
        return
    content = read_record(path, dict[str, Any], AGAIN)
    sizes = [content.get(name, 1) for name in ("n_layer", "n_embd", "n_positions", "vocab_size")]
    layers, width, context, vocabulary = decode(sizes, list[Count], str(path), AGAIN)
    parameters = 12 * layers * width * width + (vocabulary + context) * width
    held = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    if 2 * parameters > held:  # two bytes each is the fewest: bf16
        raise InputError(
            f"{place} cannot be opened: its {CONFIG} describes {parameters:,} parameters, "
            f"more than its weights of {held:,} bytes can hold; {AGAIN}"
        )
