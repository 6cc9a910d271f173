"""A base tokenizer from a `tokenizer.json`: byte-level BPE is read strictly; what would not be exact is refused.

The file may be somebody else's: its size, its numbers and the kinds of its parts are bounded. Truncation, padding and
the post-processor, which say what becomes of a text's tokens, not what they are, are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes
from duckling_data.base.records import short
from duckling_data.base.strict_json import parse_json
from duckling_data.rows.layout import MAX_VOCAB
from duckling_data.tokens.base import BYTE_OF, BaseTokenizer

LIMIT = 32 << 20
"""The largest file that is read, in bytes; Llama 3's has 9 million, Llama 4's 28."""
VALUES = 3 << 20
"""Values in it, at most; Llama 4's has half of that."""
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>")
"""What the special token is called that ends a text; of several the first of these counts."""
LONGEST_NAME = 200
"""Characters of an added token, at most."""
PROVEN = tuple(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}{1,3}", r"\p{N}")
)
"""The patterns that texts are split by, Llama 3's and Qwen 2's, with which gigatoken gave the ids of tokenizers on
every kind of Unicode character in many contexts. GPT-4o's also asks for marks, of which Unicode 17 has new ones:
gigatoken knows them, tokenizers does not."""
NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")
Id = Annotated[int, msgspec.Meta(ge=0, lt=MAX_VOCAB)]


class _Added(msgspec.Struct, forbid_unknown_fields=True):
    id: Id
    content: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = False


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["BPE"]
    vocab: dict[str, Id]
    merges: list[str | tuple[str, str]]
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _Pattern(msgspec.Struct, forbid_unknown_fields=True):
    Regex: str | None = None
    String: str | None = None


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    """A pre-tokenizer or normalizer: the fields of every kind that is taken."""

    type: str
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True
    pattern: _Pattern | None = None
    behavior: str = "Isolated"
    invert: bool = False
    individual_digits: bool = False
    pretokenizers: list[_Part] = []
    normalizers: list[_Part] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    model: _Model
    pre_tokenizer: _Part
    version: str = "1.0"
    added_tokens: list[_Added] = []
    normalizer: _Part | None = None
    truncation: Any = None
    padding: Any = None
    post_processor: Any = None
    decoder: Any = None


def read_base(path: Path) -> BaseTokenizer:
    """Return the base in a `tokenizer.json`. Raises InputError for a file that cannot be read, or is refused."""
    try:
        content = read_bytes(path, LIMIT)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a tokenizer.json.") from error
    try:
        return parse_base(content)
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected the tokenizer.json of a byte-level BPE.") from error


def open_base(path: Path, sha256: str, named_by: str) -> BaseTokenizer:
    """Return the base in the file, which `named_by` names by its SHA-256. Raises InputError for another, as above."""
    base = read_base(path)
    if base.sha256 != sha256:
        raise InputError(
            f"{path}: SHA-256 {base.sha256}, expected {short(sha256)}, what {named_by} was made with; "
            "`duckling-data run --tokenizer` with the one that is wanted makes all again."
        )
    return base


@lru_cache(maxsize=8)
def parse_base(content: bytes) -> BaseTokenizer:
    """Return the base that the bytes of a `tokenizer.json` describe; of the same bytes always the same object.

    Raises ValueError, in one line, for what is no byte-level BPE, or would not be exact.
    """
    document = parse_json(content, VALUES)
    file = _decoded(document)
    model = file.model
    merges = [_pair(merge) for merge in model.merges]
    added = {token.id: token.content for token in file.added_tokens}
    vocabulary = model.vocab | {text: token for token, text in added.items()}
    _check_model(model, merges)
    _check_added(file.added_tokens, vocabulary)
    splits = _check_pre_tokenizer(file.pre_tokenizer)
    kinds = _check_normalizer(file.normalizer)
    special = {token.content: token.id for token in file.added_tokens if token.special}
    end = next((text for text in END_TOKENS if text in special), None)
    kept = {key: value for key, value in document.items() if key not in ("truncation", "padding", "post_processor")}
    spaced = any(part.type == "ByteLevel" and part.add_prefix_space for part in splits)
    stripped = any(token.lstrip or token.rstrip for token in file.added_tokens)
    return BaseTokenizer(
        max(vocabulary.values()) + 1, special[end] if end else None, end, lambda: vocabulary, lambda: merges, added,
        load_json=lambda: json.dumps(kept | {"decoder": None}, ensure_ascii=False), again=partial(parse_base, content),
        content=content, sha256=hashlib.sha256(content).hexdigest(),
        only_tokenizers=_only_tokenizers(file, splits, kinds), keeps_bytes=not (spaced or stripped or kinds),
    )  # fmt: skip


def _decoded(document: Any) -> _File:
    """Return the file's content with its types. Raises ValueError for what no byte-level BPE has."""
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict):
        raise ValueError("has no model")
    kind = model.get("type", "BPE" if "merges" in model else "of no type")
    if kind != "BPE":
        raise ValueError(f"its model is {short(kind)}")
    if document.get("pre_tokenizer") is None:
        raise ValueError("has no pre_tokenizer; expected ByteLevel, or a Sequence that ends with it")
    try:
        return msgspec.convert(document | {"model": {**model, "type": kind}}, _File)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)[:200]) from error


def _pair(merge: str | tuple[str, str]) -> tuple[str, str]:
    left, right = merge if isinstance(merge, tuple) else (merge.partition(" ")[0], merge.partition(" ")[2])
    return left, right


def _check_model(model: _Model, merges: list[tuple[str, str]]) -> None:
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if getattr(model, name):
            raise ValueError(f"its model has {name} {short(getattr(model, name))}; expected none")
    vocabulary = model.vocab
    if missing := [byte for character, byte in BYTE_OF.items() if character not in vocabulary]:
        raise ValueError(f"has no token for {len(missing)} of the 256 bytes, the first 0x{min(missing):02X}")
    for left, right in merges:
        if not left or not right or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise ValueError(f"the merge {short([left, right])} is not of two tokens that make a third")


def _check_added(added: list[_Added], vocabulary: Mapping[str, int]) -> None:
    own = {token.content for token in added}
    if len(own) < len(added):
        raise ValueError("has an added token twice")
    if len({*vocabulary.values()}) < len(vocabulary):
        raise ValueError("has two tokens with the same id")
    for text in vocabulary:
        if not (text in own or (text and all(map(BYTE_OF.__contains__, text)))):
            raise ValueError(f"the token {short(text)} is not written in the byte alphabet")
    for text in own:
        if not text.isascii() and all(map(BYTE_OF.__contains__, text)):
            raise ValueError(f"the added token {short(text)} could be taken for other bytes in the byte alphabet")


def _check_pre_tokenizer(part: _Part) -> list[_Part]:
    """Return the pre-tokenizers in order. Raises ValueError for kinds that drop or change text, or are not known."""
    parts = part.pretokenizers if part.type == "Sequence" else [part]
    for each in parts:
        if each.type not in ("ByteLevel", "Split", "Digits", "Punctuation"):
            raise ValueError(f"its pre_tokenizer has {short(each.type)}")
        if each.behavior == "Removed":
            raise ValueError(f"its pre_tokenizer {each.type} has the behavior 'Removed', which may drop text")
    if [each.type == "ByteLevel" for each in parts] != [False] * (len(parts) - 1) + [True]:
        raise ValueError("its pre_tokenizer does not end with ByteLevel")
    return parts


def _check_normalizer(part: _Part | None) -> list[str]:
    """Return the kinds of the normalizers. Raises ValueError for one that is not known."""
    parts = [] if part is None else part.normalizers if part.type == "Sequence" else [part]
    for each in parts:
        if each.type not in NORMALIZERS:
            raise ValueError(f"its normalizer is {short(each.type)}; taken are {', '.join(NORMALIZERS)}")
    return [each.type for each in parts]


def _only_tokenizers(file: _File, splits: list[_Part], normalizers: list[str]) -> str | None:
    """Return why gigatoken may not encode with this file, or None."""
    *before, level = splits
    proven = [(each.pattern.Regex if each.pattern else None) in PROVEN and not each.invert for each in before]
    own = [token for token in file.added_tokens if not token.special]
    odd = [
        token for token in file.added_tokens if token.lstrip or token.rstrip or token.single_word or token.normalized
    ]
    reasons = {
        f"its normalizer {', '.join(normalizers)}": bool(normalizers),
        "a space that is put before texts": level.add_prefix_space,
        "pre-tokenizers that gigatoken is not proven for": proven != [True] * (not level.use_regex)
        or any((each.type, each.behavior) != ("Split", "Isolated") for each in before),
        "added tokens that are not special": bool(own),
        "added tokens that take spaces or whole words alone": bool(odd),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
