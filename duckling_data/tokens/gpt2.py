"""The base tokenizer, whose tokens the compact vocabulary is chosen from: byte-level BPE. `GPT2` is the only one.

Ids 0 to `byte_tokens` - 1 are the single bytes, merge number i made id `byte_tokens` + i, and one more token ends a
text. Everything that depends on GPT-2 asks the object `GPT2`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import orjson

from duckling_data.base.gpt2_files import gpt2_merges, gpt2_vocabulary
from duckling_data.rows.layout import row_dtype

PRINTABLE_BYTES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""The bytes whose Latin-1 character stands for them in a token's string; the others follow from U+0100 on."""


@dataclass(frozen=True)
class BaseTokenizer:
    """A byte-level BPE tokenizer. What it holds is loaded when first asked for, and shared: read it, do not change it.

    Loading raises InputError where the tokenizer's files are missing or damaged.
    """

    vocab_size: int
    eos_id: int
    """The token that ends a text, such as `<|endoftext|>`."""
    eos_text: str
    load_vocabulary: Callable[[], dict[str, int]]
    """Returns every token's string, in the byte alphabet, with its id."""
    load_merges: Callable[[], list[tuple[str, str]]]
    """Returns the merges in rank order."""
    byte_tokens: int = 256

    @cached_property
    def id_dtype(self) -> np.dtype[np.uint16]:
        """The dtype of its ids in memory and in temporary files."""
        return row_dtype(self.vocab_size)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token's string, in the byte alphabet, with its id."""
        return self.load_vocabulary()

    @cached_property
    def strings(self) -> dict[int, str]:
        """Every id with its token's string: `vocabulary` inverted."""
        return {token_id: string for string, token_id in self.vocabulary.items()}

    @cached_property
    def parts(self) -> dict[int, tuple[int, int]]:
        """Each merged token's id with the two ids that its merge joined; single bytes and the end token have none."""
        ids = self.vocabulary
        return {self.byte_tokens + i: (ids[left], ids[right]) for i, (left, right) in enumerate(self.load_merges())}

    def split(self, token_id: int, live: Container[int]) -> list[int]:
        """Return the ids, in text order, that a token splits into when merges are undone until all pieces are `live`.

        A piece without parts (a single byte, the end token) is returned as it is: the caller gives it `unk_id`.
        """
        parts = self.parts
        pieces: list[int] = []
        waiting = [token_id]
        while waiting:  # ends: a merge only joins tokens older than the one it makes, so ids fall with every split
            piece = waiting.pop()
            if piece in live or piece not in parts:
                pieces.append(piece)
            else:
                waiting += reversed(parts[piece])
        return pieces

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of text that a token stands for; not always whole UTF-8 characters."""
        if token_id == self.eos_id:
            return self.eos_text.encode()
        return bytes(map(self._alphabet.__getitem__, self.strings[token_id]))

    @cached_property
    def _alphabet(self) -> dict[str, int]:
        """The byte that each of the 256 characters of token strings stands for: GPT-2's `bytes_to_unicode` inverted."""
        others = [byte for byte in range(256) if byte not in PRINTABLE_BYTES]
        shown = {chr(byte): byte for byte in PRINTABLE_BYTES}
        return shown | {chr(0x100 + number): byte for number, byte in enumerate(others)}

    @cached_property
    def tokenizer_json(self) -> str:
        """The `tokenizer.json` that the encoders are built from: what transformers' fast tokenizer runs inside."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        eos = {"id": self.eos_id, "content": self.eos_text, "single_word": False, "lstrip": False, "rstrip": False}
        affixes = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
        flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
        model = {"type": "BPE", "dropout": None, "unk_token": None, **affixes, **flags}
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [eos | {"normalized": False, "special": True}],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level | {"add_prefix_space": True},
            "model": model | {"vocab": self.vocabulary, "merges": self.load_merges()},
        }
        return orjson.dumps(content).decode()


GPT2 = BaseTokenizer(50257, 50256, "<|endoftext|>", gpt2_vocabulary, gpt2_merges)
"""GPT-2's tokenizer, the seed's base."""
