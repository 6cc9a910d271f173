"""What is out of date, and in which order it is made.

The way is one way: corpus, counts, mapping, rows. A stage is up to date when its settings and the digests of its
inputs are those in the manifest and its files are there. Otherwise it runs, and says why.

One process at a time works in a workspace; another waits, and then finds made what it would have made itself. Readers
(`verify`, `inspect`, a notebook) take no lock: files come into their places whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from duckling_data.base.disk import make_directory
from duckling_data.base.errors import InputError
from duckling_data.base.locks import LOCK, held, remove_leftovers
from duckling_data.base.progress import Reporter
from duckling_data.base.strict_json import digest_json
from duckling_data.corpus.sources import DEFAULT_SOURCE, absolute_sources, open_corpus, remember_source, to_download
from duckling_data.corpus.splits import Corpus
from duckling_data.stages import context as stages
from duckling_data.tokens.encoding import EncodedSplit, EncoderPool
from duckling_data.tokens.mapping import MAPPING_FILE
from duckling_data.workspace.manifest import MANIFEST_NAME, ORDER, Manifest, StageRecord
from duckling_data.workspace.settings import Resolved, resolve
from duckling_data.workspace.source_record import DEFAULT_TEXT_FIELD, SOURCE_RECORD, read_source
from duckling_data.workspace.sums import SUMS_NAME, remove_sums, write_sums

NOT_DOWNLOADED = {"train": "(not downloaded)", "validation": "(not downloaded)"}


@dataclass(frozen=True)
class Request:
    """What the user asked for. What is None or absent was not given."""

    workspace: Path
    workers: int
    sources: tuple[str, ...] = ()
    text_field: str | None = None
    mapping: Path | None = None
    """A mapping of the user's own, in the place of counting and building one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The stages' settings that were given, by field name."""
    encoder: str = "gigatoken"
    offline: bool = False
    dry_run: bool = False


WRITTEN = (MANIFEST_NAME, SUMS_NAME, SOURCE_RECORD, *(place for places in stages.PLACES.values() for place in places))
"""What a command writes in a workspace, and so what a killed one may have left half-written."""


class Pipeline:
    """Brings a workspace up to date."""

    def __init__(self, request: Request, reporter: Reporter) -> None:
        self.request = request
        self.reporter = reporter
        self._remade: set[str] = set()
        self._pool = EncoderPool(request.encoder)
        self._read()

    def _read(self) -> None:
        """Read the manifest. Raises InputError for settings out of range, before anything is written."""
        self.manifest = Manifest(self.request.workspace)
        self._resolved = {name: self._resolve(name) for name in ("count", "build-vocab", "pack")}

    def _open(self) -> None:
        request = self.request
        if not self.manifest.stages and not request.dry_run:
            self._pool.warm(request.workers)  # everything will be made: load them while the source is hashed
        self.corpus = self._open_corpus()
        self._description = self.corpus.describe() if self.corpus else None
        self.digests = self.corpus.digests() if self.corpus else NOT_DOWNLOADED
        splits = self.corpus.splits() if self.corpus else {}
        self._encoded = {name: EncodedSplit(split, self._pool, request.workers) for name, split in splits.items()}

    def _resolve(self, stage: str) -> Resolved[Any]:
        record = self.manifest.stages.get(stage)
        remembered = record.settings if record else {}
        return resolve(stages.SETTINGS[stage], self.request.settings, remembered)

    def _open_corpus(self) -> Corpus | None:
        """Return the corpus, or None in a dry run that would have to download it."""
        request = self.request
        record = read_source(request.workspace)
        sources = absolute_sources(request.sources) or record.sources or [DEFAULT_SOURCE]
        text_field = request.text_field or record.text_field or DEFAULT_TEXT_FIELD
        origin = "given" if request.sources else "remembered" if record.sources else "default"
        self.reporter.say(f"source       {', '.join(sources)} ({origin})")
        if request.dry_run and not request.offline and (files := to_download(request.workspace, sources)):
            self.reporter.say(f"download     would fetch {len(files)} files, {sum(files.values()) / 1e6:,.0f} MB")
            return None
        corpus = open_corpus(
            request.workspace,
            sources,
            text_field,
            workers=request.workers,
            offline=request.offline or request.dry_run,
            reporter=self.reporter,
        )
        self._remember = partial(remember_source, request.workspace, sources, text_field, corpus)
        return corpus

    def make(self, *targets: str) -> Manifest:
        """Bring the targets, and what they need, up to date. Returns the manifest.

        Waits, having said for whom, where another process is at work in the workspace.
        """
        if self.request.dry_run:
            return self._make(targets)
        workspace = self.request.workspace
        make_directory(workspace)
        with held(workspace / LOCK, workspace, waiting=self.reporter.say):
            remove_leftovers(workspace / name for name in WRITTEN)
            self._read()  # again: another process may have been at work until now
            return self._make(targets)

    def _make(self, targets: tuple[str, ...]) -> Manifest:
        self._open()
        needed = self._needed(targets)
        if "pack" in needed and "count" in needed and not self.request.dry_run:
            # Whoever counts now will pack next: what is encoded for the one is kept for the other.
            train = self._encoded["train"].split
            self._encoded["train"] = EncodedSplit(train, self._pool, self.request.workers, self.request.workspace)
        for stage in needed:
            getattr(self, "_" + stage.replace("-", "_"))()
        if not self.request.dry_run:
            self._adopt_corpus()
            write_sums(self.request.workspace)
        self._warn_of_stale(targets)
        return self.manifest

    def _adopt_corpus(self) -> None:
        """Remember the corpus: only now that a stage has read it, so that a bad --source leaves the old one known."""
        self._remember()
        if self.manifest.corpus != self._description:
            remove_sums(self.request.workspace)
            self.manifest.corpus = self._description
            self.manifest.write()

    def _begin(self, stage: str) -> None:
        self._adopt_corpus()
        remove_sums(self.request.workspace)  # until all is made: a list that is not there tells no untruth
        self.manifest.begin(stage)

    def _needed(self, targets: tuple[str, ...]) -> list[str]:
        last = max((ORDER.index(target) for target in targets), default=-1)
        needed = [stage for stage in ORDER[: last + 1] if stage in ("count", "build-vocab") or stage in targets]
        if self._given_mapping() and "count" not in targets:
            # A mapping of the user's own needs no counts; the report shows counts and still does.
            return [stage for stage in needed if stage != "count" or "report" in targets]
        return needed

    def _given_mapping(self) -> bool:
        """Whether the workspace works with a mapping of the user's own, now or since an earlier command."""
        vocab_given = set(self.request.settings) & {"live", "dead", "unk", "eos", "sample", "seed"}
        record = self.manifest.stages.get("build-vocab")
        if self.request.mapping is not None:
            if vocab_given:
                raise InputError(
                    f"--mapping and --{sorted(vocab_given)[0]} exclude each other: a mapping is given or built."
                )
            return True
        return bool(record and "given" in record.settings and not vocab_given)

    # --- the stages: settings and inputs here, the work in stages.py -----------------------------------------------

    def _count(self) -> None:
        settings = self._resolved["count"]
        inputs = {"corpus": self.digests["train"]}
        self._stage(
            "count", settings.to_json(), inputs, settings.line(), lambda: stages.count(self._context(), settings.value)
        )

    def _build_vocab(self) -> None:
        stages.check_own_mapping(self.manifest)
        if self._given_mapping():
            self._adopt_mapping()
            return
        settings = self._resolved["build-vocab"]
        inputs = {"counts": self._figure("count", "counts_sha256")}
        if settings.value.unk == "decompose":
            inputs["corpus"] = self.digests["train"]
        self._stage(
            "build-vocab",
            settings.to_json(),
            inputs,
            settings.line(),
            lambda: stages.build_vocab(self._context(), settings.value),
        )

    def _adopt_mapping(self) -> None:
        path = self.request.mapping
        if path is None:
            own = self.request.workspace / MAPPING_FILE
            if not self.manifest.stages["build-vocab"].outputs or not own.exists():
                raise InputError(
                    f"{own}: your own mapping is there no longer, or not whole. "
                    "Give it again with --mapping FILE, or build one with `duckling-data build-vocab --live N`."
                )
            self.reporter.say("build-vocab  a mapping of your own (remembered)")
            return
        mapping = stages.read_given_mapping(path)
        self._stage(
            "build-vocab",
            {"given": True},
            {"mapping": mapping.sha256},
            f"mapping {path} (given)",
            lambda: stages.adopt_mapping(self._context(), mapping),
        )

    def _pack(self) -> None:
        settings = self._resolved["pack"]
        inputs = {"mapping": self._output("build-vocab", MAPPING_FILE)} | {
            f"corpus {name}": digest for name, digest in self.digests.items()
        }
        self._stage(
            "pack", settings.to_json(), inputs, settings.line(), lambda: stages.pack(self._context(), settings.value)
        )

    def _report(self) -> None:
        # The page shows settings and figures of every stage, so all of them are its input.
        inputs = {"corpus": digest_json(self._description)}
        for stage in ("count", "build-vocab", "pack"):
            record = self.manifest.stages.get(stage) if self._made(stage) else None
            inputs[stage] = digest_json(record.to_json()) if record else f"({stage} is not made)"
        self._stage("report", {}, inputs, "", lambda: stages.report(self._context()))

    def _stage(
        self,
        name: str,
        settings: dict[str, Any],
        inputs: dict[str, str],
        line: str,
        work: Callable[[], tuple[dict[str, dict[str, Any]], dict[str, Any]]],
    ) -> None:
        reason = self.manifest.stale(name, settings, inputs)
        if line:
            self.reporter.say(f"{name:<12} {line}")
        if reason is None:
            self.reporter.say(f"{name:<12} up to date")
            return
        if self.request.dry_run:
            self.reporter.say(f"{name:<12} would make {', '.join(stages.PLACES[name])}: {reason}")
            self._remade.add(name)
            return
        stages.refuse_foreign(self.manifest, name)
        outputs, figures = work()
        self.manifest.enter(name, StageRecord(settings, inputs, outputs, figures))
        self._remade.add(name)
        self.reporter.say(f"{name:<12} made {stages.made_places(outputs)}: {stages.summary(name, figures)} [{reason}]")

    def _context(self) -> stages.Context:
        return stages.Context(self.request.workspace, self._encoded, self.manifest, self.reporter, self._begin)

    def _figure(self, stage: str, name: str) -> str:
        """Return a digest among a stage's figures; a text that equals none, where the stage is not made."""
        figures = self.manifest.stages[stage].figures if self._made(stage) else {}
        return str(figures[name]) if name in figures else f"({stage} is not made)"

    def _output(self, stage: str, name: str) -> str:
        outputs = self.manifest.stages[stage].outputs if self._made(stage) else {}
        return str(outputs[name]["sha256"]) if name in outputs else f"({stage} is not made)"

    def _made(self, stage: str) -> bool:
        # In a dry run, what would be made again has no digest yet.
        return stage in self.manifest.stages and not (self.request.dry_run and stage in self._remade)

    def _warn_of_stale(self, targets: tuple[str, ...]) -> None:
        """Name the rows that no longer fit the mapping: a notebook reads the two side by side."""
        pack = self.manifest.stages.get("pack")
        if pack is None or not pack.outputs or "pack" in targets:
            return
        if pack.inputs.get("mapping") != self._output("build-vocab", MAPPING_FILE):
            self.reporter.say(
                "pack         out of date: tokenized_dataset/ was made with another mapping. Run `duckling-data pack`."
            )
