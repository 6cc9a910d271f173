"""Texts that two encoders of a base must agree on before the fast one is used: what byte-level BPE can trip over."""

from __future__ import annotations

from duckling_data.tokens.base import BaseTokenizer

CODES = "20 A D 9 B C 1C 1F 85 A0 1680 180E 2003 200B 2028 2029 202F 2060 3000 FEFF"
SPACES = [*(chr(int(code, 16)) for code in CODES.split()), "\r\n"]
WORDS = (
    "Once upon a time there was a little girl named Lily who can't, don't: \"Yes!\" They'll we've It's I'M WE'RE",
    "mom-dad Élodie naïve Straße ЖИЗНЬ Ελλάδα שלום مرحبا हिन्दी ไทย 日本語 中文字符 한국어 ǅ ǈ ʰ ª ⅷ ﬁ",
    "2024 3.14 1,000 v2.0 x_y 12345678 1٣ ²½① Ⅷ 〇 １２ 𝟘𝟙 a1b22c333d4444",
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'Ll 'ſ 'K ''s ' s don’t it's'll /path//to\n/x \\n <|x|> @#$%^&*()…—–«»“”",
    "e\u0301 \u0301\u0301a \u20dd\u093f a\u200cb a\u200db \ufe0f 👩‍👩‍👧 🏽🇩🇪 \ue000\U000f0000\U0010ffff\u0378 \x00\x7f",
)


def probes(base: BaseTokenizer) -> list[str]:
    """Return the texts, the same for the same base: they also hold its added tokens, and a part of its vocabulary."""
    spaced = [f"{space * times}a {space * times}1{space}!{space * times}" for space in SPACES for times in (1, 2, 3)]
    mixed = [first + second + "b" for first in SPACES for second in (" ", "\n", "  ")]
    added = list(base.added.values())
    around = [f"a{text}b {text} {text}{text}\n{text[:-1]} {text[1:]} {text.upper()} <{text}>" for text in added[:64]]
    every = sorted(base.vocabulary.values())
    parts = [b"".join(map(base.token_bytes, every[first::97])) for first in range(97)]
    tokens = [part.decode(errors="replace") for part in parts]
    runs = [character * times for character in ("a", "A", "1", " ", "\n", "é", "日", "!") for times in (7, 300)]
    return ["", *WORDS, *spaced, *mixed, *runs, "".join(added), *around, *tokens]
