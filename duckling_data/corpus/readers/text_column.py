"""The text column of a Parquet file: found by its name, of strings, in UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from duckling_data.base.errors import InputError
from duckling_data.corpus.readers.blocks import refusing, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

STORY_LIMIT = 32 << 20
"""The longest story, in bytes, as in text files."""

NAMES_SHOWN = 8
"""Columns that an error names, at most."""


def check_text_column(schema: pa.Schema, path: Path, text_field: str) -> None:
    """Raise InputError unless there is one column of that name, and it holds strings."""
    import pyarrow.types as types

    if text_field not in schema.names:
        raise InputError(
            f"{path}: no column {text_field!r}; it has {_shown(schema.names)}. "
            "Name the one that holds the stories with --text-field."
        )
    if schema.names.count(text_field) > 1:
        raise InputError(f"{path}: {schema.names.count(text_field)} columns are named {text_field!r}, expected one.")
    found = schema.field(text_field).type
    held = found.value_type if types.is_dictionary(found) else found
    if not (types.is_string(held) or types.is_large_string(held) or types.is_string_view(held) or types.is_null(held)):
        raise InputError(f"{path}: column {text_field!r} holds {str(found)[:80]}, expected text (string).")


def _shown(names: list[str]) -> str:
    shown = [repr(name if len(name) <= 60 else name[:57] + "...") for name in names[:NAMES_SHOWN]]
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return (", ".join(shown) or "none") + more


def large_strings(column: pa.Array, path: Path, first_row: int) -> pa.Array:
    """Return the column as large_string. Raises InputError at the first byte that is not UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with refusing(path):
        column.validate()
        texts = column.cast(pa.large_string())
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as invalid:
        for row, story in enumerate(texts.cast(pa.large_binary()).to_pylist()):
            try:
                (story or b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}: not UTF-8 in row {first_row + row:,} at byte offset {error.start:,} of its text "
                    f"(byte 0x{story[error.start]:02x}). Repair the file, or convert it to UTF-8."
                ) from invalid
        raise unreadable(path, invalid) from invalid
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > STORY_LIMIT:
        raise InputError(
            f"{path}: a story of {longest:,} bytes behind row {first_row:,}, at most {STORY_LIMIT:,} are read. Cut it."
        )
    return texts
