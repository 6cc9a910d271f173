"""What the trained model says: greedy continuations of three fixed prompts, for `samples.txt`."""

from __future__ import annotations

from transformers import GPT2LMHeadModel

from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.runs.generate import Sampling, continued

PROMPTS = ("Once upon a time", "One day, a little girl named Lily", "The dog")
NEW_TOKENS = 60


def greedy(model: GPT2LMHeadModel, tokenizer: DucklingTokenizer, prompt: str, new_tokens: int = NEW_TOKENS) -> str:
    """Return `prompt` with `new_tokens` most likely tokens appended, decoded; the model is on the CPU, in any dtype.

    Fewer are appended where the model's context ends or `<|endoftext|>` comes. Of equal logits the smallest id wins.
    """
    ids: list[int] = tokenizer.encode(prompt)
    room = min(new_tokens, model.config.n_positions - len(ids))
    if room > 0:
        ids = continued(model, ids, Sampling(tokens=room, greedy=True))
    return str(tokenizer.decode(ids))


def samples_text(model: GPT2LMHeadModel, tokenizer: DucklingTokenizer) -> str:
    """Return the content of `samples.txt`: for each prompt a line `> prompt`, its greedy continuation, a blank line."""
    return "".join(f"> {prompt}\n{greedy(model, tokenizer, prompt)}\n\n" for prompt in PROMPTS)
