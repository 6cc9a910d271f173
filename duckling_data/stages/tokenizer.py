"""Stage `tokenizer`: the file of another base tokenizer than GPT-2, copied into the workspace.

With GPT-2, which is installed, there is no such stage. The file is named by `--tokenizer`: a path, or a repository of
the hub at a pinned revision. The workspace remembers it, and is complete without the original.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.files import own_folder, remove, write_bytes
from duckling_data.base.progress import Reporter
from duckling_data.base.records import Count, file_faults
from duckling_data.corpus.hub.dataset import HubFile
from duckling_data.stages.base import Context, Made, Stage, described, not_made
from duckling_data.tokens.base import BASE_FILE, BaseTokenizer
from duckling_data.tokens.encoders import not_exact
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.probes import probes
from duckling_data.tokens.tokenizer_file import LIMIT, open_base, parse_base, read_base
from duckling_data.workspace.manifest import MANIFEST_NAME, Manifest
from duckling_data.workspace.settings import Resolved
from duckling_data.workspace.source_record import CORPUS

NAME = "tokenizer"
GPT2_NAME, FILE_NAME = "gpt2", "file"
"""What stands for GPT-2, and, in the manifest, for a file of the user's own, whose path is not kept."""
HUB_FILE = "tokenizer.json"
NOT_DOWNLOADED = "(not downloaded)"
HUB_ID = re.compile(r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>[0-9a-f]{40})")
LIKE_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[^/]*)?|[\w.-]+@[^/]*")


@dataclass(frozen=True)
class TokenizerSettings:
    """The settings of the stage."""

    tokenizer: str = GPT2_NAME
    """`file`, or a repository of the hub and its revision: ID@REVISION. The manifest has no stage of GPT-2's."""


class Asked(Protocol):
    """What a command asks for."""

    @property
    def tokenizer(self) -> str | None:
        """`--tokenizer`."""

    @property
    def offline(self) -> bool:
        """Whether nothing may be downloaded."""

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be downloaded or written."""


class TokenizerFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the tokenizer has."""

    tokens: Count


@dataclass(frozen=True)
class Choice:
    """The base that a command works with."""

    name: str
    """`gpt2`, `file`, or ID@REVISION."""
    origin: str
    """`given`, `remembered` or `default`."""
    base: BaseTokenizer

    @property
    def resolved(self) -> Resolved[TokenizerSettings]:
        """The settings of the stage."""
        return Resolved(TokenizerSettings(self.name), {NAME: self.origin})


def remembered_base(manifest: Manifest) -> BaseTokenizer:
    """Return the base that a workspace was made with. Raises InputError where its file is missing or another one."""
    if NAME not in manifest.stages:
        return GPT2
    record, path = manifest.made(NAME), manifest.workspace / BASE_FILE
    if record is None or BASE_FILE not in record.outputs or not path.exists():
        raise InputError(f"{path}: not there, or not whole; give the tokenizer again with --tokenizer.")
    return open_base(path, record.outputs[BASE_FILE].sha256, MANIFEST_NAME)


def recorded_base(manifest: Manifest) -> BaseTokenizer:
    """Return what stands for a workspace's base where only its SHA-256 matters: the file may be damaged."""
    if NAME not in manifest.stages:
        return GPT2
    record = manifest.stages[NAME].outputs.get(BASE_FILE)
    return replace(GPT2, sha256=record.sha256 if record else not_made(NAME))


def choose_base(asked: Asked, manifest: Manifest, reporter: Reporter, *, shard: bool = False) -> Choice:
    """Return the base that is given, else remembered, else GPT-2. Raises InputError for one that cannot be had.

    A dry run downloads nothing: a base of the hub then has GPT-2's tokens, and a SHA-256 that is none. A `shard` is
    made with the workspace's own base alone, whose file is to be there before.
    """
    choice = _chosen(asked.tokenizer, manifest, reporter, asked.offline, asked.dry_run or shard)
    if shard and choice.base.sha256 != recorded_base(manifest).sha256:
        raise InputError(
            "--tokenizer: not the workspace's own; run `duckling-data download` with the same --tokenizer first: it "
            "copies the tokenizer once for all shards."
        )
    return choice


def _chosen(given: str | None, manifest: Manifest, reporter: Reporter, offline: bool, dry_run: bool) -> Choice:
    if given is None:
        record = manifest.stages.get(NAME)
        name = GPT2_NAME if record is None else str(record.settings.get(NAME, FILE_NAME))
        return Choice(name, "remembered" if record else "default", remembered_base(manifest))
    if given == GPT2_NAME:
        return Choice(GPT2_NAME, "given", GPT2)
    with contextlib.suppress(OSError):  # too long for a name
        path = Path(given, HUB_FILE) if Path(given).is_dir() else Path(given)
        if path.exists():
            return Choice(FILE_NAME, "given", read_base(path))
    if (hub := HUB_ID.fullmatch(given)) is None:
        if LIKE_HUB_ID.fullmatch(given):
            repo = given.partition("@")[0]
            raise InputError(
                f"--tokenizer {given}: no such file, and a tokenizer of the hub needs its revision; write "
                f"{repo}@REVISION, with the 40 hex digits of a commit from huggingface.co/{repo}/commits/main."
            )
        raise InputError(f"--tokenizer {given}: no such file; expected a tokenizer.json, or ID@REVISION of the hub.")
    record = manifest.made(NAME)
    if record is not None and record.settings.get(NAME) == given:
        with contextlib.suppress(InputError):  # the revision is pinned: it is the same file, if it is whole
            return Choice(given, "given", remembered_base(manifest))
    if dry_run:
        reporter.say(f"download     would fetch {HUB_FILE} of {given}")
        return Choice(given, "given", replace(GPT2, sha256=NOT_DOWNLOADED))
    return Choice(given, "given", _downloaded(hub["repo"], hub["revision"], manifest.workspace, reporter, offline))


def _downloaded(repo: str, revision: str, workspace: Path, reporter: Reporter, offline: bool) -> BaseTokenizer:
    from duckling_data.corpus.hub.download import get_content

    file = HubFile(repo, revision, HUB_FILE, 0, kind="model")
    content = get_content(file, own_folder(workspace, CORPUS), LIMIT, reporter, offline=offline)
    try:
        return parse_base(content)
    except ValueError as error:
        raise InputError(f"{repo}: {HUB_FILE}: {error}; expected that of a byte-level BPE.") from error


def encoding_line(choice: Choice, encoder: str | None) -> str:
    """Return what encodes, and why. Raises InputError as `not_exact`, and for gigatoken where it is not exact."""
    slow = not_exact(choice.base)
    if encoder == "gigatoken" and slow:
        raise InputError(f"--encoder gigatoken: not exact for this tokenizer: {slow}; leave --encoder out.")
    if encoder == "tokenizers" or slow:
        return f"encoded by tokenizers: {'given' if encoder else slow}"
    return f"encoded by gigatoken, which agrees with tokenizers on {len(probes(choice.base))} texts"


def tokenizer_stages(
    choice: Choice, manifest: Manifest, encoder: str | None, *, dry_run: bool
) -> list[Stage[TokenizerSettings, TokenizerFigures]]:
    """Return the stage of a command, whose line says what encodes; none for GPT-2, and another base's file is removed.

    Such a file is small, and all depends on it: one that is damaged is made again.
    """
    record = manifest.stages.get(NAME)
    if choice.base.sha256 is None:
        if record is not None and not dry_run:
            remove(manifest.workspace / BASE_FILE)
            del manifest.stages[NAME]
            manifest.write()
        return []
    if record is not None and not dry_run and any(file_faults(manifest.workspace, record.outputs)):
        manifest.begin(NAME)

    def line(resolved: Resolved[TokenizerSettings]) -> str:
        return resolved.line() + ("" if dry_run else f"; {encoding_line(choice, encoder)}")

    return [replace(TOKENIZER, line=line)]


def _make(context: Context, settings: TokenizerSettings) -> Made[TokenizerFigures]:
    assert context.base.content is not None
    context.begin()
    write_bytes(context.workspace / BASE_FILE, context.base.content)
    return described(context.workspace, BASE_FILE), TokenizerFigures(len(context.base.vocabulary))


TOKENIZER = Stage(
    name=NAME, needs=(), outputs=(BASE_FILE,), settings=TokenizerSettings, figures=TokenizerFigures,
    inputs=lambda context, settings: context.base_input(), make=_make,
    summary=lambda figures: f"{figures.tokens:,} tokens",
)  # fmt: skip
