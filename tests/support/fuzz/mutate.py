"""A reader's file mutated, and whether the reader read it or refused it in one line."""

from __future__ import annotations

import os
import random
import re
import resource
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.support.fuzz.targets import Target

SECONDS = 10


MEMORY = 1 << 30


LONGEST_LINE = 1500
"""Characters of a refusal: it names a value, it does not print a file."""


HOSTILE = [
    *(b"null", b"true", b"-1", b"0", b"0.5", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1" * 5000, b"9" * 19),
    *(b"18446744073709551616", b"[]", b"{}", b"[" * 2000, b'{"a":' * 2000, b'""', b'"\\ud800"', b'"\\u0000"', b'"x"'),
    *(b'"/etc/passwd"', b'"../../../etc/passwd"', b'"' + b"y" * 3000 + b'"', b'[{"a": [1]}]', b'{"a": {"b": 1}}'),
]


INTEGERS = [0, 1, -1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]


JSON_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


def mutated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Return the content after one to six mutations; `other` is spliced in now and then."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        draw.choice(MUTATIONS)(data, other, draw)
    return bytes(data)


def _flip(data: bytearray, other: bytes, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _overwrite(data: bytearray, other: bytes, draw: random.Random) -> None:
    width = draw.choice((1, 2, 4, 8))
    place = draw.randrange(len(data) + 1)
    data[place : place + width] = (draw.choice(INTEGERS) % (1 << 8 * width)).to_bytes(width, "little")


def _cut(data: bytearray, other: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    del data[start : start + draw.choice((1, 4, 64, len(data)))]


def _repeat(data: bytearray, other: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.choice((1, 8, 100))]
    data[start:start] = piece * draw.choice((1, 2, 50))


def _splice(data: bytearray, other: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(other) + 1)
    place = draw.randrange(len(data) + 1)
    data[place : place + draw.choice((0, 16))] = other[start : start + draw.choice((4, 40, 400))]


def _json_value(data: bytearray, other: bytes, draw: random.Random) -> None:
    found = list(JSON_VALUE.finditer(data[: 1 << 16]))
    if found:
        data[slice(*draw.choice(found).span())] = draw.choice(HOSTILE)


MUTATIONS: list[Callable[[bytearray, bytes, random.Random], None]] = [
    *(_flip, _overwrite, _cut, _repeat, _splice, _json_value)
]


def execute(target: Target, folder: Path, seed: int, number: int) -> tuple[str, str]:
    """Run one execution. Returns its kind (see Outcome) and, of a fault, what it was."""
    draw = random.Random(f"{target.name} {seed} {number}")
    seeds = target.seeds()
    chosen = draw.choice(sorted(seeds))
    content = mutated(seeds[chosen], seeds[draw.choice(sorted(seeds))], draw)
    return judge(target, folder, chosen, content)


def judge(target: Target, folder: Path, name: str, content: bytes) -> tuple[str, str]:
    """Let the target read the content in the place of its seed `name`. Returns as `execute` does."""
    from duckling_data.base.errors import DucklingError

    path = folder / name
    path.write_bytes(content)
    try:
        target.read(folder, name)
    except DucklingError as error:
        line = str(error)
        if "\n" in line or len(line) > LONGEST_LINE:
            return "fault", f"a refusal of {len(line)} characters, {len(line.splitlines())} lines: {line[:80]!r}"
        return "refused", ""
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(frames) if "duckling_" in f.filename), frames[-1])
        return "fault", f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:80]}"
    finally:
        path.write_bytes(target.seeds()[name])
    return "read", ""


def put_seeds(target: Target, folder: Path) -> None:
    """Write the target's seeds into the folder and read them: they themselves must be fine."""
    target.warm(folder)
    for name, content in target.seeds().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    target.read(folder, min(target.seeds()))


def bound_memory() -> None:
    """Let this process's address space grow by MEMORY and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
