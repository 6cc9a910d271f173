"""Compare both encoders with transformers' GPT2TokenizerFast on hostile documents; exit 1 at a difference.

    python scripts/fuzz_encoders.py                  100,000 seeded documents, about half a minute
    python scripts/fuzz_encoders.py --sweep          every Unicode scalar value in eight contexts, five minutes
    python scripts/fuzz_encoders.py --tokenizer F    another base's tokenizer.json, with PreTrainedTokenizerFast

The documents mix ordinary words with what byte-level BPE can trip over: every kind of space and line break, digits
and letters of every script, combining marks, joiners, unassigned and private code points, contractions, whole and
broken `<|endoftext|>`, and long runs of one character.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from duckling_data.base.gpt2_files import MERGES_FILE, VOCABULARY_FILE, gpt2_folder, read_checked
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.encoders import ENCODERS, load_encoder, not_exact
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.tokenizer_file import read_base

BATCH = 5_000
SURROGATES = range(0xD800, 0xE000)
SCALARS = [code for code in range(0x110000) if code not in SURROGATES]
CONTEXTS = ("{}", "a{}b", " {}", "{}{}", "{}1", "a {}\n", "{} {} a", "'s{}'t  {}")

SENTENCES = (
    "Once upon a time there was little girl named Lily who can't don't said, \"Yes!\" They'll we've It's end. mom-dad "
    "Élodie naïve Straße ЖИЗНЬ жизнь Ελλάδα שלום مرحبا हिन्दी ไทย 日本語 中文字符 한국어 2024 3.14 1,000 v2.0 x_y"
)
WORDS = SENTENCES.split()
SPACES = [" ", "\n", "\r\n", "\r", "\t", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u180e"]
SPACES += [chr(code) for code in (*range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF)]
CONTRACTIONS = [q + s for q in "'’‘´`" for s in ("s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ll", "ſ", "")]
EOS_TEXT = str(GPT2.eos_text)
EOS_PARTS = [EOS_TEXT, EOS_TEXT * 2, EOS_TEXT[:-1], EOS_TEXT[1:], EOS_TEXT[:5], EOS_TEXT.upper(), f" {EOS_TEXT} ", "<|"]
EOS_PARTS += [f"{EOS_TEXT}\n", f"\n\n{EOS_TEXT}", f"a{EOS_TEXT}b", "<" + EOS_TEXT, EOS_TEXT + ">", "|>", "<|endof|>"]
MARKS = ["\u0301", "\u0308", "\u20dd", "\u093f", "\u200c", "\u200d", "\ufe0f", "👩‍👩‍👧", "🏽", "🇩🇪", "\u202e", "\x00"]
DIGITS = [chr(code) for code in (0x660, 0x966, 0xB2, 0xBD, 0x2460, 0x2160, 0x3007, 0xFF11, 0x1D7D8, 0x1FBF0, 0x11DA0)]
NEW_LETTERS = [chr(code) for code in (0x88F, 0xA7CE, 0x10940, 0x11DE0, 0x16FF4, 0x1E6C0, 0x323B0, 0x33479, 0x3347A)]
BLOCKS = [(0x20, 0x7F), (0x80, 0x250), (0x250, 0x2000), (0x2000, 0x3000), (0x3000, 0xD800), (0xE000, 0x10000)]
BLOCKS += [(0x10000, 0x20000), (0x1E000, 0x1FC00), (0x20000, 0x40000), (0xE0000, 0xE0200), (0xF0000, 0x110000)]


def piece(rng: random.Random) -> str:
    """Return a word, a run of one kind of hostile text, or a run of random code points."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice((" ", "", "\n")) + rng.choice(WORDS)
    if kind < 0.60:
        return "".join(rng.choices(SPACES, k=rng.randint(1, 5)))
    if kind < 0.85:
        hostile = rng.choice((CONTRACTIONS, EOS_PARTS, MARKS, DIGITS, NEW_LETTERS, [" "]))
        return rng.choice(hostile) * rng.choice((1, 1, 1, 2, 7))
    low, high = rng.choice(BLOCKS)
    return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 6)))


def documents(count: int, seed: int) -> Iterator[str]:
    """Yield `count` documents, the same for the same seed: most short, one in a thousand up to 20,000 characters."""
    rng = random.Random(seed)
    for _ in range(count):
        text = "".join(piece(rng) for _ in range(rng.choice((0, 1, 2, 4, 8, 16, 32))))
        if rng.random() < 0.001:
            text += rng.choice(["a", "A", "1", " ", "\n", "é", "日", "\u3000", "!", "ab", "' ", EOS_TEXT]) * 10_000
        yield text


def sweep() -> Iterator[str]:
    """Yield every Unicode scalar value in every context."""
    for context in CONTEXTS:
        for code in SCALARS:
            yield context.replace("{}", chr(code))


def load_oracle(base: BaseTokenizer) -> Any:
    """Return transformers' tokenizer: of GPT-2 from its two files, as if they had been downloaded."""
    from tokenizers import Tokenizer
    from transformers import GPT2TokenizerFast, PreTrainedTokenizerFast

    if base.content is not None:
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(base.content.decode()))
    with tempfile.TemporaryDirectory() as folder:
        for name, theirs in ((VOCABULARY_FILE, "vocab.json"), (MERGES_FILE, "merges.txt")):
            (Path(folder) / theirs).write_text(read_checked(gpt2_folder(), name), encoding="utf-8", newline="")
        return GPT2TokenizerFast.from_pretrained(folder, model_max_length=10**9)


def differences(texts: list[str], oracle: Any, encoders: dict[str, Any]) -> tuple[int, list[tuple[str, str, Any, Any]]]:
    """Return the oracle's number of tokens and, for each difference, (encoder, text, its ids, the oracle's ids)."""
    expected = oracle(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    lengths = np.array([len(ids) for ids in expected], dtype=np.int64)
    tokens = np.array([token for ids in expected for token in ids], dtype=np.uint32)
    array = pa.array(texts, type=pa.large_string())
    found = []
    for name, encoder in encoders.items():
        batch = encoder.encode_batch(array)
        if np.array_equal(batch.lengths, lengths) and np.array_equal(batch.tokens, tokens):
            continue
        rows = np.split(batch.tokens, np.cumsum(batch.lengths)[:-1])
        wrong = [i for i, (row, ids) in enumerate(zip(rows, expected, strict=True)) if row.tolist() != ids]
        found += [(name, texts[i], rows[i].tolist(), expected[i]) for i in wrong]
    return len(tokens), found


def compare(texts: Iterator[str], total: int, base: BaseTokenizer = GPT2) -> int:
    """Compare all `texts`, print figures and the first difference, and return the number of differences."""
    if slow := not_exact(base):
        print(f"gigatoken is not used: {slow}")
    exact = ENCODERS[1:] if slow else ENCODERS
    oracle, encoders = load_oracle(base), {name: load_encoder(name, base) for name in exact}
    tokens, differing = 0, 0
    with tqdm(total=total, unit="doc", unit_scale=True) as bar:
        while batch := list(islice(texts, BATCH)):
            counted, found = differences(batch, oracle, encoders)
            if found and not differing:
                name, text, ours, theirs = found[0]
                tqdm.write(f"{name} differs on {text!r}:\n  {name}: {ours}\n  transformers: {theirs}")
            tokens, differing = tokens + counted, differing + len(found)
            bar.update(len(batch))
    print(f"{total:,} documents, {tokens:,} tokens, {' and '.join(encoders)}: {differing:,} differences")
    return differing


def main() -> int:
    """Run the comparison that the arguments ask for; return 1 if an encoder differed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000, help="how many seeded documents")
    parser.add_argument("--seed", type=int, default=1, help="the generator's seed")
    parser.add_argument("--sweep", action="store_true", help="compare every Unicode scalar value instead")
    parser.add_argument("--tokenizer", type=Path, help="the tokenizer.json of another base than GPT-2")
    options = parser.parse_args()
    base = read_base(options.tokenizer) if options.tokenizer else GPT2
    EOS_PARTS.extend(base.added.values())
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # one thread runs here, so the oracle may use every core
    texts = sweep() if options.sweep else documents(options.documents, options.seed)
    total = len(SCALARS) * len(CONTEXTS) if options.sweep else options.documents
    return 1 if compare(texts, total, base) else 0


if __name__ == "__main__":
    sys.exit(main())
