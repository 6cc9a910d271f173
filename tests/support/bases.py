"""Base tokenizers other than GPT-2, as `tokenizer.json` files: trained here, on demo stories."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from duckling_data.corpus.demo import demo_stories

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
OTHERS = "naïve Élodie жизнь 日本語 🦆 2024 3.14 they'll don't IT'S\n\n  \r\n" * 20
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{number}|>" for number in range(4))]


def trained(pre_tokenizer: Any, size: int, special: list[str]) -> dict[str, Any]:
    """A BPE trained on stories, as the library writes it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*demo_stories(0, 300).to_pylist(), OTHERS], trainer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def added(token: int, text: str) -> dict[str, Any]:
    """The entry of a special token."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": text, **flags, "special": True}


@cache
def llama_3_like() -> bytes:
    """Its pattern, `ignore_merges` with some words that no merge makes, and its layout: special tokens after all."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    content = trained(pre_tokenizers.Sequence([split, level]), 1500, [])
    model = content["model"]
    made = {"".join(merge) for merge in model["merges"][900:]}
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) not in made or len(merge[1]) > 1]
    model["ignore_merges"] = True
    content["added_tokens"] = [added(len(model["vocab"]) + number, text) for number, text in enumerate(SPECIAL)]
    content["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    return json.dumps(content, ensure_ascii=False).encode()


@cache
def small() -> bytes:
    """The library's own layout, a special token first, none that ends a text; merges as strings."""
    content = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 700, ["<pad>"])
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    return json.dumps(content).encode()


@cache
def sparse() -> bytes:
    """Ids far apart, up to 150,000: more than uint16 holds; its `</s>` is one of the vocabulary."""
    content = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 600, ["</s>"])
    content["model"]["vocab"] = {text: 250 * token + 7 for text, token in content["model"]["vocab"].items()}
    content["added_tokens"] = [added(7, "</s>")]
    return json.dumps(content).encode()


@cache
def normalizing() -> bytes:
    """With a normalizer and a space before texts: only the library's own encoder is exact."""
    content = trained(pre_tokenizers.ByteLevel(add_prefix_space=True), 600, ["<|endoftext|>"])
    content["normalizer"] = {"type": "NFC"}
    return json.dumps(content).encode()


BASES: dict[str, Callable[[], bytes]] = {
    "llama 3": llama_3_like, "small": small, "sparse": sparse, "normalizing": normalizing
}  # fmt: skip


def changed(content: bytes, **parts: Any) -> bytes:
    """The file with other parts; `model__NAME` is a part of its model."""
    document = json.loads(content)
    for name, value in parts.items():
        place = document["model"] if name.startswith("model__") else document
        place[name.removeprefix("model__")] = value
    return json.dumps(document).encode()
