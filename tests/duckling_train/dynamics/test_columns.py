"""The columns are documented: once each, and in docs/dynamics.md as in the code."""

from __future__ import annotations

import re
from pathlib import Path

from duckling_train.dynamics.columns import ROW_COLUMNS, STEP_COLUMNS, TOKEN_COLUMNS

DOCS = Path(__file__).parents[3] / "docs" / "dynamics.md"
TABLES = {"measures.parquet": STEP_COLUMNS, "rows.parquet": (*ROW_COLUMNS, *TOKEN_COLUMNS)}


def test_the_documentation_has_the_columns_of_the_code() -> None:
    sections = re.split(r"^### `(.+)`$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {name: re.findall(r"^\| `(\w+)` \| (.*) \| (.+) \|$", text, flags=re.MULTILINE)
             for name, text in zip(sections[::2], sections[1::2], strict=True)}  # fmt: skip
    assert {name: [tuple(column) for column in table] for name, table in TABLES.items()} == found


def test_each_column_is_there_once() -> None:
    for table in TABLES.values():
        names = [column.name for column in table]
        assert len({*names}) == len(names)
