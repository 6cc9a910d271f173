"""The words of the demo stories: the lexicon file, the forms of a word, and the long tail out of GPT-2's vocabulary.

A class is a list of words with integer weights. A hand-written class takes its weights from the order of its words, as
Zipf's law has it; a tail class takes them from the rank of the word among GPT-2's whole-word tokens, along the curve
TAIL_WEIGHTS, which was fitted once so that the stories' coverage curve follows that of TinyStories.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

ZIPF_TOP = 600
ZIPF_SHIFT = 3
"""Word number i of a class has weight ZIPF_TOP // (i + ZIPF_SHIFT), and at least 1."""

TAIL_WEIGHTS = ((0, 390), (400, 280), (1000, 110), (2200, 52), (3900, 12), (7300, 6), (12200, 1))
"""Knots (rank, weight): between two knots the weight falls by a straight line, in integers."""

TAIL_CLASSES = {"word": r".*", "doing": r".{3,}ing", "manner": r".{4,}ly"}
"""Which tail words a class takes: any, those that name a doing, those that tell a manner."""

CUT_OFF = r".*[vuijqz]|.*[^i]c|[^aeiouy]*|(is|are|was|were|do|does|did|has|had|could|would|should)n|davidjl|gmaxwell"
"""No English word is so, but many a token is that only begins a longer word or is cut at an apostrophe."""

CRUDE = (
    r"(anal|ass|asses|cum|hell|hoe|hoes|tit|tits|gay|gays|whites|blacks)|"
    r"(abus|addict|adulter|arous|assault|bastard|behead|bitch|bondage|boob|bomb|breast|brothel|clit|cocaine|cock|corpse|crap|crotch|"
    r"cunt|damn|dead|death|decapit|dick|drug|drunk|ejac|erect|erot|execut|explicit|fag|fetish|fuck|genital|genocid|gore|gun|harass|hate|"
    r"heroin|hitler|homicid|homosex|incest|jihad|kill|lesbian|lynch|marijuana|massacr|masturb|militan|molest|murder|naked|nazi|negro|"
    r"nigg|nipple|nud|opio|orgas|orgy|pedoph|penetrat|penis|piss|poop|porn|prostitut|puss|racis|rape|rapi?st|rectum|"
    r"retard|scrot|seduc|semen|sex|shit|slaughter|slave|slur|slut|sniper|sodom|sperm|stabb|stalk|strangl|suicid|terror|testic|"
    r"tortur|vagin|viol|weapon|whor)\w*"
)
"""Words and stems that have no place in a child's story."""

_PRONOUNS = {"she": ("she", "her", "her", "herself", "girl"), "he": ("he", "him", "his", "himself", "boy")}
_FORMS = {
    "plain": ("",),
    "noun": ("", "s"),
    "verb": ("", "ed", "ing"),
    "place": ("", "at"),
    "she": ("", "he", "him", "his", "himself", "child"),
    "he": ("", "he", "him", "his", "himself", "child"),
}
_RULES: dict[str, Callable[[str], tuple[str, ...]]] = {
    "plain": lambda word: (),
    "noun": lambda word: (word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s",),
    "verb": lambda word: _verb_forms(word),
    "place": lambda word: ("in the " + word,),
    "she": lambda word: _PRONOUNS["she"],
    "he": lambda word: _PRONOUNS["he"],
}


@dataclass(frozen=True)
class WordClass:
    """Words that may stand in the same slot."""

    forms: tuple[str, ...]
    """Names of the forms, the base form "" first."""
    words: tuple[tuple[str, ...], ...]
    """One tuple per word: its forms."""
    weights: npt.NDArray[np.int64]
    """How many times each word lies in the urn that a draw is made from."""


def read_lexicon(text: str) -> dict[str, WordClass]:
    """Return the classes of a lexicon file by name. The file's own head says how it is written."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    classes = {}
    for block in re.split(r"^\[", "\n".join(lines), flags=re.MULTILINE)[1:]:
        head, body = block.split("]", 1)
        name, kind = head.split()
        classes[name] = _word_class(kind, [entry.strip() for entry in body.split(",")])
    return classes


def _word_class(kind: str, entries: Sequence[str]) -> WordClass:
    words = []
    for entry in entries:
        base, *given = entry.split("/")
        words.append((base, *(given or _RULES[kind](base))))
        assert len(words[-1]) == len(_FORMS[kind]), entry
    weights = np.maximum(ZIPF_TOP // (np.arange(len(words), dtype=np.int64) + ZIPF_SHIFT), 1)
    return WordClass(_FORMS[kind], tuple(words), weights)


def _verb_forms(base: str) -> tuple[str, str]:
    if re.search("[^aeiou]y$", base):
        return base[:-1] + "ied", base + "ing"
    if base.endswith("e"):
        return base + "d", base[:-1] + "ing"
    return base + "ed", base + "ing"


def joined(classes: Sequence[WordClass]) -> WordClass:
    """Return one class with the words of several of the same forms, each with its weight."""
    words = tuple(word for one in classes for word in one.words)
    return WordClass(classes[0].forms, words, np.concatenate([one.weights for one in classes]))


def tail_classes(vocabulary: Mapping[str, int], known: set[str]) -> dict[str, WordClass]:
    """Return the tail classes of a GPT-2 vocabulary, token string to id; words in `known` are left out."""
    ranked = _whole_words(vocabulary)
    ranked = [word for word in ranked if word not in known]
    ranked = ranked[: TAIL_WEIGHTS[-1][0]]
    weights = _weights_by_rank(len(ranked))
    classes = {}
    for name, pattern in TAIL_CLASSES.items():
        chosen = [rank for rank, word in enumerate(ranked) if re.fullmatch(pattern, word)]
        classes[name] = WordClass(_FORMS["plain"], tuple((ranked[rank],) for rank in chosen), weights[chosen])
    return classes


def _whole_words(vocabulary: Mapping[str, int]) -> list[str]:
    tokens = sorted((number, token) for token, number in vocabulary.items() if re.fullmatch("Ġ[a-z]{3,}", token))
    words = [token[1:] for _, token in tokens]
    unfit = re.compile(f"{CUT_OFF}|{CRUDE}")
    beginnings = _beginnings(words)
    return [word for word in words if word not in beginnings and not unfit.fullmatch(word)]


def _beginnings(words: Sequence[str]) -> set[str]:
    """Return the tokens that only begin longer tokens: "langu" of "language", "arrang" of "arranging"."""
    every = set(words)
    begun = {word[:end] for word in words for end in range(3, len(word))} & every
    return {word for word in begun if not _has_forms(word, every)}


def _has_forms(word: str, every: set[str]) -> bool:
    """Return whether a token that begins others is a word itself; a short one must show it by two of its forms."""
    endings = ["s", "ly", "ness", "less", "ful"]
    if word + "e" not in every and not (word[-1] == word[-2] and word[:-1] in every):
        endings += ["ed", "ing"]
    return sum(word + ending in every for ending in endings) >= (2 if len(word) <= 4 else 1)


def _weights_by_rank(count: int) -> npt.NDArray[np.int64]:
    weights = np.empty(count, np.int64)
    for (low, high_weight), (high, low_weight) in pairwise(TAIL_WEIGHTS):
        ranks = np.arange(low, min(high, count), dtype=np.int64)
        weights[low : low + len(ranks)] = high_weight - (high_weight - low_weight) * (ranks - low) // (high - low)
    return weights


def with_article(phrase: str) -> str:
    """Return `phrase` with "a" or "an" in front, by the sound that it begins with."""
    vowel = re.match(r"hono|hour|(?!uni(?!n)|use|one|eu)[aeiou]", phrase) is not None
    return f"{'an' if vowel else 'a'} {phrase}"
