"""Continues prompts with a trained model: `duckling-train generate`, by transformers' `model.generate`.

Each prompt is a sequence of its own, on the CPU, and the random stream starts at the seed for each of them: a prompt's
continuation depends on the run, the prompt and the sampling alone, not on the prompts beside it, on their order, or on
the number of threads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GPT2LMHeadModel
from transformers import logging as transformers_logging

from duckling_data.base.errors import InputError
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.config import MAX_SEED
from duckling_train.runs.layout import CONFIG
from duckling_train.runs.read import model_directory

UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    SafetensorError,
)
"""What transformers and torch raise over settings and weights that make no model."""
COLDEST = 1e-6
"""The lowest temperature: logits divided by much less overflow float32."""


@dataclass(frozen=True)
class Sampling:
    """How the next tokens are chosen. Raises InputError when a value is out of range."""

    tokens: int = 100
    """New tokens a prompt; fewer where `<|endoftext|>` comes before."""

    greedy: bool = False
    """Whether the most likely token is taken each time, of equals the smallest id; else one is drawn."""

    temperature: float = 1.0
    """What the logits are divided by before a token is drawn."""

    top_k: int = 0
    """A token is drawn among this many most likely ones; 0 is all."""

    seed: int = 42
    """Where the random stream starts, for each prompt anew."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InputError(f"--tokens is {self.tokens}; it must be at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= COLDEST):
            raise InputError(
                f"--temperature is {self.temperature}; it must be at least {COLDEST:g} (--greedy is the limit at 0)"
            )
        if self.top_k < 0:
            raise InputError(f"--top-k is {self.top_k}; it must be at least 0, where 0 is all tokens")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"--seed is {self.seed}; it must be between 0 and {MAX_SEED}")


def continuations(
    run_dir: Path, prompts: Sequence[str], sampling: Sampling, note: Callable[[str], None] = lambda line: None
) -> Iterator[str]:
    """Return, for each prompt in turn, the text that the run's model read and went on with.

    `note` gets a line for each prompt with tokens that the mapping does not know: the model reads others in their
    place. Raises InputError for a run without a whole model, and, before anything is generated, for a prompt that is
    empty, no text, or too long for the model's context together with the new tokens.
    """
    model, tokenizer = open_model(run_dir)
    read = [_prompt_ids(tokenizer, prompt, sampling.tokens, model.config.n_positions) for prompt in prompts]
    for prompt, ids in zip(prompts, read, strict=True):
        unknown = unknown_tokens(tokenizer, prompt)
        if unknown:
            note(f"{unknown} of the {len(ids)} tokens of {prompt!r} are unknown: it reads {tokenizer.decode(ids)!r}")
    return (str(tokenizer.decode(continued(model, ids, sampling))) for ids in read)


def continued(model: GPT2LMHeadModel, ids: Sequence[int], sampling: Sampling) -> list[int]:
    """Return a prompt's compact ids followed by the new ones. The model is on the CPU, in any dtype.

    torch's global random stream and its number of threads are left as they were.
    """
    input_ids = torch.tensor([ids])
    drawn = {"temperature": sampling.temperature, "top_k": sampling.top_k}
    was_training = model.training
    model.train(False)
    with _one_thread(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(sampling.seed)
        generating: Any = model  # the library's types do not admit GPT-2 here
        output = generating.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=sampling.tokens,
            do_sample=not sampling.greedy,
            **({} if sampling.greedy else drawn),
        )
    model.train(was_training)
    new: list[int] = output[0].tolist()
    return new


def unknown_tokens(tokenizer: DucklingTokenizer, text: str) -> int:
    """Return how many of the text's tokens have no compact id, so that `unk_id` stands in for them."""
    known = tokenizer.get_vocab()
    return sum(token not in known for token in tokenizer.tokenize(text))


def open_model(run_dir: Path) -> tuple[GPT2LMHeadModel, DucklingTokenizer]:
    """Return a run's model, on the CPU in the dtype of its weights, and its tokenizer.

    Raises InputError for a run that has no model yet and for a damaged one.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it warns of is refused here
    place = model_directory(run_dir)
    try:
        opened: Any = GPT2LMHeadModel.from_pretrained(
            str(place), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model, found = opened
        # transformers itself would draw what is missing at random, and leave out what is too many.
        wrong = sorted({*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]})
        if wrong:
            raise ValueError(f"its weights are not those of its {CONFIG}: {wrong[0]}")
        return model, DucklingTokenizer.from_pretrained(str(place), local_files_only=True)
    except UNREADABLE as error:
        raise _cannot_open(place, error) from error


def _cannot_open(place: Path, error: Exception) -> InputError:
    """Return the one line for a library's own words about a model's directory."""
    words = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return InputError(f"{place} cannot be opened ({words}): train the run again with --overwrite")


def name_special_tokens(model: Any, tokenizer: DucklingTokenizer) -> None:
    """Give `model` the tokenizer's end and padding ids, for `generate`: where it stops, and what it fills batches with.

    GPT-2's own (50256) lie outside the compact vocabulary. There is no begin token. Nothing in training reads them.
    """
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = None
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: in a model this small several mostly wait, and their number would shape the bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _prompt_ids(tokenizer: DucklingTokenizer, prompt: str, new_tokens: int, context: int) -> list[int]:
    """Return the prompt's compact ids. Raises InputError for one that the model cannot continue."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--prompt {prompt!r} is not text in UTF-8") from error
    ids: list[int] = tokenizer.encode(prompt, verbose=False)  # its own warning would come before the refusal below
    if not ids:
        raise InputError("--prompt is empty; the model has no begin token, so give it at least one token")
    if len(ids) + new_tokens > context:
        raise InputError(
            f"--prompt {_shortened(prompt)!r} has {len(ids):,} tokens; with --tokens {new_tokens:,} that makes "
            f"{len(ids) + new_tokens:,}, and the model's context is {context:,}"
        )
    return ids


def _shortened(prompt: str, width: int = 40) -> str:
    return prompt if len(prompt) <= width else prompt[: width - 1] + "…"
