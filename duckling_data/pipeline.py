"""What is out of date, and in which order it is made.

A stage is up to date when its settings and the digests of its inputs are those in the manifest and its files are there.
Otherwise it runs, and says why. One process at a time works in a workspace; another waits. Readers (`verify`,
`inspect`, a notebook) take no lock: files are renamed into place whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from duckling_data.base.disk import make_directory
from duckling_data.base.errors import InputError
from duckling_data.base.locks import LOCK, held, remove_leftovers
from duckling_data.base.progress import Reporter
from duckling_data.base.records import plain
from duckling_data.corpus.sources import open_corpus, refuse_urls, remember_source, to_download, wanted_source
from duckling_data.corpus.splits import Corpus
from duckling_data.stages import NAMES, STAGES
from duckling_data.stages.base import Context, Stage
from duckling_data.stages.count import COUNT
from duckling_data.stages.pack import DATASET_NAMES, PACK
from duckling_data.stages.vocab import VOCAB, given_mapping, is_given
from duckling_data.tokens.encoding import EncodedSplit, EncoderPool
from duckling_data.tokens.mapping import MAPPING_FILE
from duckling_data.workspace.manifest import MANIFEST_NAME, SUMS_NAME, Manifest, StageRecord
from duckling_data.workspace.settings import Resolved, resolve
from duckling_data.workspace.source_record import SOURCE_RECORD, Newline, OnBadLine, read_source


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
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The stages' settings that were given, by field name."""
    encoder: str = "gigatoken"
    offline: bool = False
    dry_run: bool = False


class Pipeline:
    """Brings a workspace up to date."""

    def __init__(self, request: Request, reporter: Reporter) -> None:
        self.request = request
        self.reporter = reporter
        self._pool = EncoderPool(request.encoder)
        self._read()

    def _read(self) -> None:
        """Read the manifest. Raises InputError for settings out of range, before anything is written."""
        self.manifest = Manifest(self.request.workspace, NAMES)
        given = self._mapping_given()
        self._stages = [given_mapping(self.request.mapping) if given and stage is VOCAB else stage for stage in STAGES]
        self._resolved = {stage.name: self._resolve(stage) for stage in self._stages}

    def _resolve(self, stage: Stage[Any, Any]) -> Resolved[Any]:
        record = self.manifest.stages.get(stage.name)
        # What is remembered of a mapping that was built says nothing of one that is given, nor the reverse.
        same = record is not None and (stage.name != VOCAB.name or is_given(record) == (stage is not VOCAB))
        return resolve(stage.settings, self.request.settings, record.settings if record and same else {})

    def _mapping_given(self) -> bool:
        """Return whether the workspace works with a mapping of the user's own, now or since an earlier command."""
        names = {setting.name for stage in (COUNT, VOCAB) for setting in fields(stage.settings)}
        build = sorted(names & set(self.request.settings))
        if self.request.mapping is not None and build:
            raise InputError(f"--mapping and --{build[0]} exclude each other: a mapping is given or built.")
        return self.request.mapping is not None or (not build and is_given(self.manifest.stages.get(VOCAB.name)))

    def make(self, *targets: str) -> Manifest:
        """Bring the targets, and what they need, up to date. Returns the manifest. Waits for the workspace's lock."""
        if self.request.dry_run:
            return self._make(targets)
        workspace = self.request.workspace
        make_directory(workspace)
        with held(workspace / LOCK, workspace, waiting=self.reporter.say):
            written = (MANIFEST_NAME, SUMS_NAME, SOURCE_RECORD, *(name for stage in STAGES for name in stage.outputs))
            remove_leftovers(workspace, written)
            self._read()  # again: another process may have been at work until now
            return self._make(targets)

    def _make(self, targets: tuple[str, ...]) -> Manifest:
        needed = set(targets)
        for stage in reversed(self._stages):
            needed |= set(stage.needs) if stage.name in needed else set()
        context = self._open(needed)
        for stage in self._stages:
            if stage.name in needed:
                self._bring_up_to_date(stage, context)
        if not self.request.dry_run:
            self._adopt_corpus(context)
            self.manifest.write_sums()
        if PACK.name not in needed:
            self._warn_of_old_rows(context)
        return self.manifest

    def _open(self, needed: set[str]) -> Context:
        """Open and hash the corpus. Returns what the stages work with; a split is encoded where a stage asks for it."""
        request = self.request
        if not self.manifest.stages and not request.dry_run:
            self._pool.warm(request.workers)  # everything will be made: load them while the source is hashed
        corpus = self._open_corpus()
        # Where counting is followed by packing, what is encoded for the one is kept for the other.
        kept = {"train": request.workspace} if {COUNT.name, PACK.name} <= needed and not request.dry_run else {}
        splits = corpus.splits().items() if corpus else ()
        return Context(
            manifest=self.manifest,
            corpus=corpus.describe() if corpus else None,
            digests=corpus.digests() if corpus else dict.fromkeys(DATASET_NAMES, "(not downloaded)"),
            encoded={name: EncodedSplit(split, self._pool, request.workers, kept.get(name)) for name, split in splits},
            reporter=self.reporter,
        )

    def _open_corpus(self) -> Corpus | None:
        """Return the corpus, or None in a dry run that would have to download it."""
        request = self.request
        record = read_source(request.workspace)
        wanted = wanted_source(
            record, request.sources, request.text_field, request.validation, request.validation_share,
            newline=request.newline, on_bad_line=request.on_bad_line,
        )  # fmt: skip
        sources = wanted.sources
        origin = "given" if request.sources else "remembered" if record.sources else "default"
        self.reporter.say(f"source       {', '.join(sources)} ({origin})")
        if request.offline:
            refuse_urls(wanted)
        if request.dry_run and not request.offline and (files := to_download(request.workspace, wanted)):
            self.reporter.say(f"download     would fetch {len(files)} files, {sum(files.values()) / 1e6:,.0f} MB")
            return None
        offline = request.offline or request.dry_run
        workspace, workers = request.workspace, request.workers
        corpus = open_corpus(workspace, wanted, workers=workers, offline=offline, reporter=self.reporter)
        if corpus.validation is None:
            self.reporter.say(
                "source       no validation split; --validation PATH or --validation-share 0.01 gives one"
            )
        self._remember = partial(remember_source, request.workspace, wanted, corpus)
        return corpus

    def _adopt_corpus(self, context: Context) -> None:
        """Remember the corpus: only now that a stage has read it, so that a bad --source leaves the old one known."""
        self._remember()
        if self.manifest.corpus != context.corpus:
            self.manifest.corpus = context.corpus
            self.manifest.write()

    def _bring_up_to_date(self, stage: Stage[Any, Any], context: Context) -> None:
        name, resolved = stage.name, self._resolved[stage.name]
        settings, inputs = resolved.to_json(), stage.inputs(context, resolved.value)
        if line := stage.line(resolved):
            self.reporter.say(f"{name:<12} {line}")
        reason = self.manifest.stale(name, settings, inputs)
        if reason is None:
            self.reporter.say(f"{name:<12} up to date")
        elif self.request.dry_run:
            self.reporter.say(f"{name:<12} would make {', '.join(stage.outputs)}: {reason}")
            context.outdated.add(name)
        else:
            self._refuse_foreign(stage)
            begin = partial(self._begin, name, context)
            outputs, figures = stage.make(replace(context, begin=begin), resolved.value)
            self.manifest.enter(name, StageRecord(settings, inputs, outputs, plain(figures)))
            shown = dict.fromkeys(output.split("/")[0] + "/" * ("/" in output) for output in outputs)
            self.reporter.say(f"{name:<12} made {', '.join(shown)}: {stage.summary(figures)} [{reason}]")
        if stage.page and not self.request.dry_run:
            self.reporter.say(f"{name:<12} open {(self.request.workspace / stage.page).resolve()}")

    def _begin(self, stage: str, context: Context) -> None:
        self._adopt_corpus(context)
        self.manifest.begin(stage)

    def _refuse_foreign(self, stage: Stage[Any, Any]) -> None:
        """Raise InputError if an output is there that this workspace did not make."""
        for path in (self.request.workspace / output for output in stage.outputs):
            if path.exists() and stage.name not in self.manifest.stages:
                raise InputError(
                    f"{path}: there already, but not made by this workspace; move it away, or use another --workspace; "
                    "a mapping of your own is given with --mapping FILE."
                )

    def _warn_of_old_rows(self, context: Context) -> None:
        """Name the rows that no longer fit the mapping: a notebook reads both."""
        pack = self.manifest.made(PACK.name)
        if pack and pack.inputs.get("mapping") != context.output(VOCAB.name, MAPPING_FILE):
            self.reporter.say(
                "pack         out of date: tokenized_dataset/ was made with another mapping. Run `duckling-data pack`."
            )
