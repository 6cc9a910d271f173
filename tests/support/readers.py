"""Files of stories, refused or read in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from duckling_data.base.errors import InputError
from duckling_data.corpus.readers import ReadOptions, count_stories, read_blocks

MIB = 1 << 20


def stories(path: Path, block_bytes: int = 1 << 12) -> list[str | None]:
    read = [story for block in read_blocks(path, ReadOptions(), block_bytes) for story in block.parse().to_pylist()]
    assert count_stories(path, ReadOptions()) == len(read)
    return read


def refused(path: Path, block_bytes: int = 1 << 12) -> str:
    with pytest.raises(InputError) as error:
        stories(path, block_bytes)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line


def grown(*paths: Path) -> list[tuple[str, int]]:
    """What a child that reads the files says of each, and the bytes by which its memory has grown until then."""
    script = (
        "import re, sys, pathlib, pyarrow.parquet, orjson, numpy\n"
        "from duckling_data.corpus.readers import ReadOptions, count_stories, read_blocks\n"
        "from duckling_data.base.errors import InputError\n"
        # Not getrusage: what it gives begins with the memory of the process that started this one.
        "status = pathlib.Path('/proc/self/status')\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', status.read_text())[1]) << 10\n"
        "before = peak()\n"
        "for path in map(pathlib.Path, sys.argv[1:]):\n"
        "    try: print(sum(len(block.parse()) for block in read_blocks(path, ReadOptions())))\n"
        "    except InputError as error: print(error)\n"
        "    print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return [(said, int(memory)) for said, memory in zip(lines[::2], lines[1::2], strict=True)]
