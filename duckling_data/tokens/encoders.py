"""Text to a base's ids: gigatoken, at hundreds of MB/s a core, and Hugging Face's tokenizers, the fallback.

Both give the ids that `GPT2TokenizerFast(text, add_special_tokens=False)` gives, on any Unicode text; a literal
`<|endoftext|>` becomes id 50256. `scripts/fuzz_encoders.py` compares the three. For another base than GPT-2 gigatoken
is used where the form of the tokenizer's file is one for which it was proven, and both agree on the texts of `probes`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.rows.layout import TokenIds
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.probes import probes

if TYPE_CHECKING:
    import pyarrow as pa

ENCODERS = ("gigatoken", "tokenizers")

_NEW_SPANS = (
    "88F C5C CDC A7CE-A7CF A7D2 A7D4 A7F1 10940-10959 10EC5-10EC7 11DB0-11DDB 11DE0-11DE9 16EA0-16EB8 16EBB-16ED3 "
    "16FF2-16FF6 187F8-187FF 18D09-18D1E 18D80-18DF2 1E6C0-1E6DE 1E6E0-1E6E2 1E6E4-1E6E5 1E6E7-1E6ED 1E6F0-1E6F4 "
    "1E6FE-1E6FF 2B73A-2B73F 2CEA2-2CEAD 323B0-33479"
)
_NEW_RANGES = ("-".join(chr(int(code, 16)) for code in span.split("-")) for span in _NEW_SPANS.split())
NEW_IN_UNICODE_17 = f"[{''.join(_NEW_RANGES)}]"
"""A regular expression for one letter or number that Unicode 17 added: gigatoken knows them, tokenizers does not."""
NEW_LEAD_BYTES = (b"\xe0", b"\xea", b"\xf0")
"""In UTF-8 every such character begins with one of these bytes, which occur nowhere else in a character."""


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of a batch of stories."""

    tokens: TokenIds
    """The base's ids of all stories, one after another, shape (sum of lengths,)."""
    lengths: npt.NDArray[np.int64]
    """Tokens in each story, in the batch's order, shape (stories,); 0 for an empty story."""

    def stories(self) -> list[TokenIds]:
        """Return each story's tokens, as views."""
        return np.split(self.tokens, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


class _GigatokenEncoder:
    """gigatoken's byte-level BPE. It releases the GIL, but a lock inside lets one thread at a time use an encoder.

    Over all 1,112,064 Unicode scalar values there is one difference: gigatoken 0.10 knows the letters and numbers of
    Unicode 17, tokenizers those of Unicode 16. A text that holds one of the 4,657 new ones is encoded by tokenizers.
    gigatoken gives uint32: the cast to uint16 costs 3 %, and the table look-up, which reads half the bytes, gains more.
    """

    def __init__(self, base: BaseTokenizer = GPT2) -> None:
        import gigatoken

        self._base = base
        self._tokenizer = gigatoken.Tokenizer.from_json(base.tokenizer_json)

    @cached_property
    def _fallback(self) -> _TokenizersEncoder:
        return _TokenizersEncoder(self._base)

    def encode(self, text: str) -> list[int]:
        if re.search(NEW_IN_UNICODE_17, text):
            return self._fallback.encode(text)
        try:
            ids: list[int] = self._tokenizer.encode(text).tolist()
        except TypeError:
            _refuse_lone_surrogate(text)
            raise
        return ids

    def encode_batch(self, texts: pa.LargeStringArray) -> TokenBatch:
        import awkward as ak
        import pyarrow as pa

        texts = _without_validity(texts)
        layout = self._tokenizer.encode_batch(ak.from_arrow(texts), parallel=False).layout
        offsets = layout.offsets.data
        batch = TokenBatch(layout.content.data[offsets[0] : offsets[-1]].astype(self._base.id_dtype), np.diff(offsets))
        if replaced := _holding_new_characters(texts):
            rows = batch.stories()
            others = self._fallback.encode_batch(texts.take(pa.array(replaced))).stories()
            for index, row in zip(replaced, others, strict=True):
                rows[index] = row
            batch = TokenBatch(np.concatenate(rows), np.array(list(map(len, rows))))
        return batch


class _TokenizersEncoder:
    """Hugging Face's tokenizers: some hundred times slower, and what `GPT2TokenizerFast` itself runs."""

    def __init__(self, base: BaseTokenizer = GPT2) -> None:
        # Threads each have an encoder, so one must not start threads of its own; set so, it does not warn of forks.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        self._dtype = base.id_dtype
        self._tokenizer = Tokenizer.from_str(base.tokenizer_json)

    def encode(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            _refuse_lone_surrogate(text)
            raise
        return ids

    def encode_batch(self, texts: pa.LargeStringArray) -> TokenBatch:
        stories = _without_validity(texts).to_pylist()
        encodings = self._tokenizer.encode_batch_fast(stories, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        tokens = np.fromiter(chain.from_iterable(rows), dtype=self._dtype)
        return TokenBatch(tokens, np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)))


Encoder = _GigatokenEncoder | _TokenizersEncoder
"""Text to a base's ids: `encode(text)` gives a list, `encode_batch` a TokenBatch of a `large_string` array, no nulls.

One encoder serves one thread: threads that share one wait for each other. `encode` raises InputError for a text that
holds half of a surrogate pair: such a text, often bytes that are no UTF-8, has no tokens."""


def encoder_version(kind: str | None) -> str:
    """Return the encoder's name with the version of all that decides its tokens; `kind` as `load_encoder` takes it."""
    packages = ("tokenizers",) if kind == "tokenizers" else ENCODERS  # what gigatoken does not know, tokenizers encodes
    return f"{kind or ENCODERS[0]}: " + ", ".join(f"{package} {version(package)}" for package in packages)


def load_encoder(kind: str | None = None, base: BaseTokenizer = GPT2) -> Encoder:
    """Return a new encoder of one of the `ENCODERS`, one for each thread; None is gigatoken wherever that is exact.

    Raises InputError for another name, for gigatoken where it is not exact, and for a base that is refused.
    """
    if kind not in (None, *ENCODERS):
        raise InputError(f"no encoder {kind!r}; --encoder takes {' or '.join(ENCODERS)}")
    slow = not_exact(base)
    if kind == "gigatoken" and slow:
        raise InputError(f"--encoder gigatoken: not exact for this tokenizer: {slow}; leave --encoder out.")
    return _TokenizersEncoder(base) if kind == "tokenizers" or slow else _GigatokenEncoder(base)


@lru_cache(maxsize=8)
def not_exact(base: BaseTokenizer) -> str | None:
    """Return why gigatoken does not encode exactly with a base, or None where it does. Loads both encoders, once.

    Raises InputError for a base that the tokenizers library refuses, reads otherwise than its file says, or whose
    tokens lose a part of a text.
    """
    if base is GPT2:  # proven by scripts/fuzz_encoders.py, and by the tests
        return None
    texts = probes(base)
    with one_line("the tokenizer", "expected one that the tokenizers library takes"):
        exact = _TokenizersEncoder(base)
        found = exact._tokenizer.get_vocab(with_added_tokens=True)
        expected = [exact.encode(text) for text in texts]
    if found != base.vocabulary:
        raise InputError("the tokenizer: the tokenizers library gives its tokens other ids than the file says.")
    if base.keeps_bytes:
        for text, ids in zip(texts, expected, strict=True):
            if b"".join(map(base.token_bytes, ids)) != text.encode():
                raise InputError(f"the tokenizer: loses a part of {text[:40]!a}; expected tokens for every byte.")
    if base.only_tokenizers:
        return base.only_tokenizers
    try:
        fast = _GigatokenEncoder(base)
        differing = (text for text, ids in zip(texts, expected, strict=True) if fast.encode(text) != ids)
        found_on = next(differing, None)
    except BaseException as error:
        if not _is_failure(error):
            raise
        return f"gigatoken refuses it ({str(error).strip().splitlines()[0][:80]})"
    return None if found_on is None else f"gigatoken differs on {found_on[:40]!a}"


@contextlib.contextmanager
def one_line(what: str, advice: str) -> Iterator[None]:
    """Turn what the tokenizers library raises over a file into an InputError; a panic is no Exception there."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not _is_failure(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{what} cannot be read ({reason}); {advice}") from error


def _is_failure(error: BaseException) -> bool:
    """Return whether it is an error of a library written in Rust, whose panics are no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _refuse_lone_surrogate(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = ascii(text[max(error.start - 20, 0) : error.end + 20])
        raise InputError(f"text {around}: character {error.start:,} is no character of UTF-8; remove it") from error


def _without_validity(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Return `texts` over the same memory without its validity bitmap, which a slice may keep though it has no null."""
    import pyarrow as pa

    if not isinstance(texts, pa.LargeStringArray):
        kind = getattr(texts, "type", type(texts).__name__)
        raise ValueError(f"stories must come as one pyarrow array of large_string, not {kind}")
    if texts.null_count:
        raise ValueError(f"{texts.null_count} of {len(texts)} stories are null; fill or drop them before encoding")
    _validity, offsets, content = texts.buffers()
    return pa.LargeStringArray.from_buffers(len(texts), offsets, content, None, 0, texts.offset)


def _holding_new_characters(texts: pa.LargeStringArray) -> list[int]:
    """Return which stories hold a character of `NEW_IN_UNICODE_17`, after a search of its bytes for lead bytes."""
    import pyarrow.compute as pc

    _validity, offsets, content = texts.buffers()
    first, last = np.frombuffer(offsets, np.int64)[[texts.offset, texts.offset + len(texts)]]
    octets = memoryview(content)[first:last]
    # Most batches are ASCII: their largest byte, found without a copy, shows it.
    if first == last or np.frombuffer(octets, np.uint8).max() < min(NEW_LEAD_BYTES)[0]:
        return []
    held = octets.tobytes()
    if not any(lead in held for lead in NEW_LEAD_BYTES):
        return []
    found: list[int] = pc.indices_nonzero(pc.match_substring_regex(texts, NEW_IN_UNICODE_17)).to_pylist()
    return found
