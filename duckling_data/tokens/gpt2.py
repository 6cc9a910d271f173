"""GPT-2's tokenizer, the base that compact vocabularies are chosen from unless another one is given.

Its ids 0 to 255 are the single bytes, merge number i made id 256 + i, and one more token ends a text.
"""

from __future__ import annotations

import orjson

from duckling_data.base.gpt2_files import gpt2_merges, gpt2_vocabulary
from duckling_data.tokens.base import BaseTokenizer

EOS_ID, EOS_TEXT = 50256, "<|endoftext|>"


def _gpt2_json() -> str:
    """Return what transformers' fast tokenizer of GPT-2 runs inside."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    eos = {"id": EOS_ID, "content": EOS_TEXT, "single_word": False, "lstrip": False, "rstrip": False}
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
        "model": model | {"vocab": GPT2.vocabulary, "merges": gpt2_merges()},
    }
    return orjson.dumps(content).decode()


def _again() -> BaseTokenizer:
    return GPT2


GPT2 = BaseTokenizer(
    50257, EOS_ID, EOS_TEXT, gpt2_vocabulary, gpt2_merges, {EOS_ID: EOS_TEXT}, load_json=_gpt2_json, again=_again
)
"""GPT-2's tokenizer, the seed's base."""
