"""What the trained model says: greedy continuations of three fixed prompts, for `samples.txt`."""

from __future__ import annotations

import torch
from transformers import GPT2LMHeadModel

from duckling_data.tokenizer import DucklingTokenizer

PROMPTS = ("Once upon a time", "One day, a little girl named Lily", "The dog")
NEW_TOKENS = 60


def greedy(model: GPT2LMHeadModel, tokenizer: DucklingTokenizer, prompt: str, new_tokens: int = NEW_TOKENS) -> str:
    """Return `prompt` with `new_tokens` most likely tokens appended, decoded; the model is on the CPU, in float32.

    There is one sequence, so nothing is padded. Of equal logits the smallest id is taken.
    """
    input_ids = torch.tensor([tokenizer.encode(prompt)])
    was_training = model.training
    model.eval()
    with torch.no_grad():
        output = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            do_sample=False,
            max_new_tokens=new_tokens,
        )
    model.train(was_training)
    return str(tokenizer.decode(output[0].tolist()))


def samples_text(model: GPT2LMHeadModel, tokenizer: DucklingTokenizer) -> str:
    """Return the content of `samples.txt`: for each prompt a line `> prompt`, its greedy continuation, a blank line."""
    return "".join(f"> {prompt}\n{greedy(model, tokenizer, prompt)}\n\n" for prompt in PROMPTS)
