"""The language of the demo stories, as read from its files: a grammar of templates, classes of words, rare words.

A class is a list of words with integer weights. A hand-written class takes its weights from the order of its words, as
Zipf's law has it. A tail class takes them from the rank of the word among GPT-2's whole-word tokens, along the curve
TAIL_WEIGHTS, which was fitted once so that the stories' coverage curve follows that of TinyStories.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

LEADS = ("", " ", "\n\n")
"""What comes before a section: nothing, a space within a paragraph, an empty line before a new one."""
HERO_FORMS = ("he", "his", "him", "himself", "child")
SLOT = re.compile(r"\{(?:([aA]) )?([a-zA-Z_]+)(\d?)(?:\.(\w+))?\}")
PLOT_SECTIONS = ("1", "2", "3", "4")
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
"""Words and stems that do not belong in a child's story."""


@dataclass(frozen=True)
class Slot:
    """A part of a template that is filled by a draw."""

    name: str
    """The class, or the member of the cast."""
    number: str
    """The digit by which several slots of a template share a draw, or ""."""
    form: str
    article: bool
    capital: bool


@dataclass
class Grammar:
    """The grammar file as read."""

    cast: dict[str, list[str]] = field(default_factory=dict)
    """The classes that each member of the cast is drawn from."""
    frames: list[tuple[int, list[tuple[int, str]]]] = field(default_factory=list)
    """Weight and run of (lead, section) of every frame; `lead` is an index of LEADS."""
    plots: list[str] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)
    """The templates of every section; a plot's own sections are called "PLOT.1" and so on."""


def read_grammar(text: str) -> Grammar:
    """Return the grammar that a grammar file describes. The file's own head says how it is written."""
    grammar = Grammar()
    section = ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        name, _, run = rest.partition(": ")
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = f"{grammar.plots[-1]}.{line[1:-1]}" if line[1:-1] in PLOT_SECTIONS else line[1:-1]
        elif section == "" and word == "cast":
            grammar.cast[name] = run.split()
        elif section == "" and word == "frame":
            steps, lead = [], 0
            for step in run.split():
                if step != "/":
                    steps.append((lead, step))
                lead = 2 if step == "/" else 1
            grammar.frames.append((int(name), steps))
        elif re.fullmatch(r"plot \w+", line):
            grammar.plots.append(rest)
        else:
            grammar.sections.setdefault(section, []).append(line)
    return grammar


def template_parts(template: str) -> list[str | Slot]:
    """Return a template as fixed text and slots, in order."""
    parts: list[str | Slot] = []
    end = 0
    for match in SLOT.finditer(template):
        article, name, number, form = match.groups(default="")
        capital = article == "A" or name[0].isupper()
        name = name.lower()
        if name in HERO_FORMS:
            name, form = "hero", name
        parts += [template[end : match.start()], Slot(name, number, form, article != "", capital)]
        end = match.end()
    return [part for part in [*parts, template[end:]] if part != ""]


@dataclass(frozen=True)
class WordClass:
    """Words that may fill the same slot."""

    forms: tuple[str, ...]
    """Names of the forms, the base form "" first."""
    words: tuple[tuple[str, ...], ...]
    """One tuple per word: its forms."""
    weights: npt.NDArray[np.int64]
    """How often each word is in the urn that a draw is made from."""


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
    forms, rule = _KINDS[kind]
    words = []
    for entry in entries:
        base, *given = entry.split("/")
        words.append((base, *(given or rule(base))))
        assert len(words[-1]) == len(forms), entry
    weights = np.maximum(ZIPF_TOP // (np.arange(len(words), dtype=np.int64) + ZIPF_SHIFT), 1)
    return WordClass(forms, tuple(words), weights)


def _noun_forms(base: str) -> tuple[str]:
    return (base[:-1] + "ies" if re.search("[^aeiou]y$", base) else base + "s",)


def _verb_forms(base: str) -> tuple[str, str]:
    if re.search("[^aeiou]y$", base):
        return base[:-1] + "ied", base + "ing"
    if base.endswith("e"):
        return base + "d", base[:-1] + "ing"
    return base + "ed", base + "ing"


_PERSON = ("", *HERO_FORMS)
_KINDS: dict[str, tuple[tuple[str, ...], Callable[[str], tuple[str, ...]]]] = {
    "plain": (("",), lambda word: ()),
    "noun": (("", "s"), _noun_forms),
    "verb": (("", "ed", "ing"), _verb_forms),
    "place": (("", "at"), lambda word: ("in the " + word,)),
    "she": (_PERSON, lambda word: ("she", "her", "her", "herself", "girl")),
    "he": (_PERSON, lambda word: ("he", "his", "him", "himself", "boy")),
}
"""The names of each kind's forms, and the rule that makes the forms after the first."""


def tail_classes(vocabulary: Mapping[str, int], known: set[str]) -> dict[str, WordClass]:
    """Return the tail classes of a GPT-2 vocabulary, token string to id; words in `known` are left out."""
    ranked = [word for word in _whole_words(vocabulary) if word not in known][: TAIL_WEIGHTS[-1][0]]
    lines = [
        top - (top - bottom) * np.arange(high - low, dtype=np.int64) // (high - low)
        for (low, top), (high, bottom) in pairwise(TAIL_WEIGHTS)
    ]
    weights = np.concatenate(lines)
    classes = {}
    for name, pattern in TAIL_CLASSES.items():
        chosen = [rank for rank, word in enumerate(ranked) if re.fullmatch(pattern, word)]
        classes[name] = WordClass(("",), tuple((ranked[rank],) for rank in chosen), weights[chosen])
    return classes


def _whole_words(vocabulary: Mapping[str, int]) -> list[str]:
    """Return the tokens that are words, in order of their ids.

    Left out is what only begins longer tokens: "langu" of "language", "arrang" of "arranging".
    """
    words = [token[1:] for token in sorted(vocabulary, key=vocabulary.__getitem__) if re.fullmatch("Ġ[a-z]{3,}", token)]
    every = set(words)
    begun = {word[:end] for word in words for end in range(3, len(word))} & every
    beginnings = {word for word in begun if not _has_forms(word, every)}
    unfit = re.compile(f"{CUT_OFF}|{CRUDE}")
    return [word for word in words if word not in beginnings and not unfit.fullmatch(word)]


def _has_forms(word: str, every: set[str]) -> bool:
    """Return whether a token that begins others is a word itself; a short one must show it by two of its forms."""
    endings = ["s", "ly", "ness", "less", "ful"]
    if word + "e" not in every and not (word[-1] == word[-2] and word[:-1] in every):
        endings += ["ed", "ing"]
    return sum(word + ending in every for ending in endings) >= (2 if len(word) <= 4 else 1)


def with_article(phrase: str) -> str:
    """Return `phrase` with "a" or "an" in front, by the sound that it begins with."""
    vowel = re.match(r"hono|hour|(?!uni(?!n)|use|one|eu)[aeiou]", phrase) is not None
    return f"{'an' if vowel else 'a'} {phrase}"
