"""Continues prompts with a trained model, as transformers' `generate` does: `duckling-train generate`, on the CPU.

A continuation depends on the run, the prompt and the sampling alone: each prompt is a sequence of its own, on one
thread, and its random stream starts at the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_train.config import MAX_SEED
from duckling_train.gpt2 import Cache, Gpt2, as_plain
from duckling_train.runs.open import open_plain

if TYPE_CHECKING:
    from duckling_data.tokens.tokenizer import DucklingTokenizer
    from duckling_train.engines.base import Model

COLDEST = 1e-6
"""The lowest temperature: logits divided by much less overflow float32."""
PROMPTS = ("Once upon a time", "One day, a little girl named Lily", "The dog")
"""The prompts of `samples.txt`."""
NEW_TOKENS = 60
SENTENCES_FROM = 1000
"""Steps below which `samples.txt` says that they are too few for sentences."""


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
    """Return, for each prompt in turn, the text that the run's model read and its continuation.

    `note` gets a line for each prompt with unknown tokens: the model reads others instead. Raises InputError for a run
    without a whole model, and, before anything is generated, for a prompt that is empty, no text, or with the new
    tokens longer than the model's context.
    """
    model, tokenizer = open_plain(run_dir)
    read = [_prompt_ids(tokenizer, prompt, sampling.tokens, model.config.n_positions) for prompt in prompts]
    known = tokenizer.get_vocab()
    for prompt, ids in zip(prompts, read, strict=True):
        if unknown := sum(token not in known for token in tokenizer.tokenize(prompt)):
            seen = tokenizer.decode(ids, show_unknown=True)
            note(f"{unknown} of the {len(ids)} tokens of {prompt!r} are unknown: it reads {seen!r}")
    return (str(tokenizer.decode(continued(model, ids, sampling), show_unknown=True)) for ids in read)


def continued(model: Model, ids: Sequence[int], sampling: Sampling) -> list[int]:
    """Return a prompt's compact ids followed by the new ones: those that transformers' `generate` gives.

    The model is on the CPU, in any dtype. torch's global random stream and its number of threads stay as they were.
    """
    plain, threads = as_plain(model), torch.get_num_threads()
    was_training = plain.training
    torch.set_num_threads(1)  # in a model this small more mostly wait, and their number would shape the bits
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(sampling.seed)
            return _continued(plain.eval(), list(ids), sampling)
    finally:
        plain.train(was_training)
        torch.set_num_threads(threads)


def _continued(model: Gpt2, ids: list[int], sampling: Sampling) -> list[int]:
    cache, read = Cache(), ids
    for _ in range(sampling.tokens):
        scores = model(torch.tensor([read]), cache=cache).logits[:, -1].float()
        read = [int(scores.argmax()) if sampling.greedy else _drawn(scores, sampling)]
        ids = ids + read
        if read[0] == model.end:
            break
    return ids


def _drawn(scores: torch.Tensor, sampling: Sampling) -> int:
    """Return a token drawn from the logits, [1, vocabulary], by the operations of transformers' sampling."""
    if sampling.temperature != 1.0:
        scores = scores / sampling.temperature
    if sampling.top_k:
        least = torch.topk(scores, min(sampling.top_k, scores.shape[-1]))[0][..., -1, None]
        scores = scores.masked_fill(scores < least, float("-inf"))
    return int(torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1))


def greedy(model: Model, tokenizer: DucklingTokenizer, prompt: str, new_tokens: int = NEW_TOKENS) -> str:
    """Return `prompt` with `new_tokens` most likely tokens appended, fewer where the model's context ends, decoded."""
    ids: list[int] = tokenizer.encode(prompt)
    room = min(new_tokens, model.config.n_positions - len(ids))
    if room > 0:
        ids = continued(model, ids, Sampling(tokens=room, greedy=True))
    return str(tokenizer.decode(ids, show_unknown=True))


def samples_text(model: Model, tokenizer: DucklingTokenizer, steps: int) -> str:
    """Return the content of `samples.txt`: for each prompt a line `> prompt`, its greedy continuation, a blank line.

    Of a model that was trained for fewer than SENTENCES_FROM steps, the first line says so.
    """
    short_run = f"({steps:,} steps, too few for sentences: the likeliest tokens are frequent words.)\n\n"
    texts = (f"> {prompt}\n{greedy(model, tokenizer, prompt)}\n\n" for prompt in PROMPTS)
    return short_run * (steps < SENTENCES_FROM) + "".join(texts)


def name_special_tokens(model: Any, tokenizer: DucklingTokenizer) -> None:
    """Give `model` the tokenizer's end and padding ids, and its cache, for `generate`; training has neither.

    GPT-2's own ids (50256) are outside the compact vocabulary. There is no begin token.
    """
    if isinstance(model, Gpt2):
        model.end, model.padding = tokenizer.eos_token_id, tokenizer.pad_token_id
        return
    for settings in (model.config, model.generation_config):
        settings.use_cache = True
        settings.bos_token_id = None
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id


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
            f"--prompt {short(prompt)} has {len(ids):,} tokens; with --tokens {new_tokens:,} that makes "
            f"{len(ids) + new_tokens:,}, and the model's context is {context:,}"
        )
    return ids
