"""What a command asks of a workspace: its options, as the pipeline takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duckling_data.workspace.source_record import Newline, OnBadLine


@dataclass(frozen=True)
class Request:
    """What the user asked for. What is None or absent was not given."""

    workspace: Path
    workers: int
    sources: tuple[str, ...] = ()
    text_field: str | None = None
    validation: tuple[str, ...] = ()
    """Files or folders of validation stories."""
    validation_share: float | None = None
    """The share of the sources' stories that is validation; 0 for none."""
    newline: Newline | None = None
    on_bad_line: OnBadLine | None = None
    mapping: Path | None = None
    """A mapping of the user's own, in place of counting and building one."""
    tokenizer: str | None = None
    """The base: `gpt2`, a tokenizer.json, or ID@REVISION of the hub; None is the workspace's own, else GPT-2."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The stages' settings that were given, by field name."""
    encoder: str | None = None
    """What encodes; None is gigatoken where that is exact."""
    executor: str = "local"
    """`local` or `ray`: who does the work of the stages that go through the stories."""
    ray_address: str | None = None
    """The Ray cluster; None for one on this machine, as long as the command runs."""
    shards: int | None = None
    """Parts of a split, each done by one task; None for as many as its size asks for."""
    keep_tokens: bool = True
    """Whether tokens are kept in the workspace; where not, those that are there are removed."""
    offline: bool = False
    dry_run: bool = False
