"""A mapping of the user's own (`--mapping FILE`) in place of one that is counted and built."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes, write_bytes
from duckling_data.stages.base import Context, Made, Stage, described
from duckling_data.stages.vocab import VOCAB, VocabFigures, refuse_edited
from duckling_data.tokens.mapping import MAPPING_FILE, MAPPING_LIMIT, parse_mapping, read_mapping
from duckling_data.workspace.manifest import StageRecord


@dataclass(frozen=True)
class GivenSettings:
    """The settings of the stage."""

    given: bool = True
    """Says in the manifest that the mapping was given."""


def is_given(record: StageRecord | None) -> bool:
    """Return whether a record of `build-vocab` is that of a mapping of the user's own."""
    return record is not None and "given" in record.settings


def given_mapping(path: Path | None) -> Stage[GivenSettings, VocabFigures]:
    """Return the stage that takes the place of `build-vocab`: it copies the mapping in the file, byte for byte.

    `path` is None for the mapping that an earlier command copied.
    """

    def inputs(context: Context, settings: GivenSettings) -> dict[str, str]:
        refuse_edited(context.manifest)
        own = context.workspace / MAPPING_FILE
        if path is None and not (context.made(VOCAB.name) and own.exists()):
            raise InputError(
                f"{own}: your own mapping is missing or not whole; "
                "give it again with --mapping FILE, or build one with `duckling-data build-vocab --live N`."
            )
        read_mapping(path or own)
        return {"mapping": hashlib.sha256(read_bytes(path or own, MAPPING_LIMIT)).hexdigest()}

    def make(context: Context, settings: GivenSettings) -> Made[VocabFigures]:
        source = path or context.workspace / MAPPING_FILE
        content = read_bytes(source, MAPPING_LIMIT)
        mapping = parse_mapping(content, str(source))
        context.begin()
        write_bytes(context.workspace / MAPPING_FILE, content)
        figures = VocabFigures(mapping["live_tokens"], mapping["dead_tokens"])
        return Made(described(context.workspace, MAPPING_FILE), figures)

    line = "a mapping of your own (remembered)" if path is None else f"mapping {path} (given)"
    return Stage(
        name=VOCAB.name, needs=(), outputs=VOCAB.outputs, settings=GivenSettings, figures=VocabFigures,
        inputs=inputs, make=make, summary=VOCAB.summary, line=lambda resolved: line,
    )  # fmt: skip
