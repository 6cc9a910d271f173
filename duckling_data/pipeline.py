"""What is out of date, and in which order it is made.

A stage is up to date when its settings and the digests of its inputs are those in the manifest and its files are there.
Otherwise it runs, and says why. One process at a time works in a workspace; another waits. Readers (`verify`,
`inspect`, a notebook) take no lock: files are renamed into place whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from typing import Any

from duckling_data.base.disk import make_directory
from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.executor import Executor, LocalExecutor
from duckling_data.base.locks import LOCK, held, remove_leftovers
from duckling_data.base.progress import Reporter
from duckling_data.base.records import plain
from duckling_data.corpus.sources import open_corpus, refuse_urls, remember_source, to_download, wanted_source
from duckling_data.corpus.splits import Corpus
from duckling_data.stages import EVERY, NAMES, STAGES
from duckling_data.stages.base import Context, Stage
from duckling_data.stages.count import COUNT
from duckling_data.stages.pack import PACK
from duckling_data.stages.packer import DATASET_NAMES
from duckling_data.stages.shards import Sharding, do, remove_shards, shard_settings
from duckling_data.stages.tokenizer import choose_base, tokenizer_stages
from duckling_data.stages.vocab import VOCAB, given_mapping, is_given
from duckling_data.tokens.encoding import EncoderPool, Encoding, encoded_splits
from duckling_data.tokens.mapping import MAPPING_FILE
from duckling_data.tokens.store import KEPT_FOLDERS, keep_only
from duckling_data.workspace.manifest import MANIFEST_NAME, SUMS_NAME, Manifest, StageRecord
from duckling_data.workspace.request import Request as Request
from duckling_data.workspace.settings import Resolved, resolve
from duckling_data.workspace.source_record import SOURCE_RECORD, read_source, source_fault


class Pipeline:
    """Brings a workspace up to date."""

    def __init__(self, request: Request, reporter: Reporter, *, joins: str | None = None) -> None:
        """`joins` is the stage whose shards were made before, by `make_shard`."""
        self.request = request
        self.reporter = reporter
        self._joins = joins
        self._recorded = joins is not None
        """Whether the source's files are those that an earlier command hashed, and are not hashed again."""
        self._closing = ExitStack()
        self._executor: Executor = LocalExecutor(request.workers)
        self._threads = 1
        if request.executor == "ray":
            from duckling_data.base.ray_executor import OnRay

            self._executor = OnRay(request.ray_address, self._closing, reporter)
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
        remembered = record.settings if record and same else {}
        if stage.name == self._joins and not self.request.settings:
            remembered = shard_settings(self.request.workspace, stage.name) or remembered
        return resolve(stage.settings, self.request.settings, remembered)

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
        if self._joins:
            self._refuse_unrecorded()
        make_directory(workspace)
        with held(workspace / LOCK, workspace, waiting=self.reporter.say), self._closing:
            written = (MANIFEST_NAME, SUMS_NAME, SOURCE_RECORD, *(name for stage in EVERY for name in stage.outputs))
            remove_leftovers(workspace, (*written, *KEPT_FOLDERS))
            if not self.request.keep_tokens:
                keep_only(workspace, ())
            self._read()  # again: another process may have been at work until now
            return self._make(targets)

    def make_shard(self, name: str, number: int) -> None:
        """Make one shard of a stage, out of `Request.shards`; other processes make the others, and `joins` joins them.

        Nothing is locked. Raises InputError where the stage is not divided, or what it needs is out of date.
        """
        if self.request.executor != "local":
            raise InputError("--shard and --executor exclude each other: one process makes the shard.")
        stage = next(stage for stage in self._stages if stage.name == name)
        self._refuse_unrecorded()
        self._recorded = True
        context = self._open({name}, shard=True)
        for need in (other for other in self._stages if other.name in stage.needs):
            resolved = self._resolved[need.name]
            if reason := self.manifest.stale(need.name, resolved.to_json(), need.inputs(context, resolved.value)):
                own = " --mapping FILE" if self.request.mapping and need.name == VOCAB.name else ""
                first = f"`duckling-data {need.name}{own}`"
                raise InputError(f"{need.name}: {reason}; run {first} first, then the shards.")
        resolved = self._resolved[name]
        inputs = stage.inputs(context, resolved.value)
        if self.manifest.stale(name, resolved.to_json(), inputs) is None:
            self.reporter.say(f"{name:<12} up to date")  # joined already
            return
        self._threads = self.request.workers
        sharding = self._sharding(stage, context, resolved, inputs)
        sharded = replace(context, sharding=sharding)
        tasks = stage.shards(sharded, resolved.value) if stage.shards else []
        self.reporter.say(f"{name:<12} {stage.line(resolved)}")
        if not tasks:
            raise InputError(f"--shard: {name} is not divided into shards; expected count or pack.")
        assert sharding is not None
        sharding.remember(resolved.to_json())
        done = tasks[number].is_done()
        do(tasks[number])
        self.reporter.say(f"{name:<12} shard {number} of {len(tasks)} {'was made before' if done else 'made'}")

    def _refuse_unrecorded(self) -> None:
        """Raise InputError in a workspace whose source was never read: a shard does not hash all of it.

        Raises CheckFailed where the record of that is damaged.
        """
        if fault := source_fault(self.request.workspace):
            raise CheckFailed(f"{self.request.workspace / SOURCE_RECORD}: {fault}; run `duckling-data download` again.")
        if not read_source(self.request.workspace).sources:
            raise InputError(
                f"{self.request.workspace}: no source is recorded; run `duckling-data download` with the same "
                "--workspace and --source first: it hashes and counts the stories once for all shards."
            )

    @property
    def _is_divided(self) -> bool:
        """Whether the stages that go through the stories do it in shards."""
        return bool(self._joins or self.request.shards or self.request.executor == "ray")

    def _sharding(
        self, stage: Stage[Any, Any], context: Context, resolved: Resolved[Any], inputs: Mapping[str, str]
    ) -> Sharding | None:
        """Return how the stage is divided, or None where this process does all of it in one go."""
        request, joins = self.request, stage.name == self._joins
        if not self._is_divided:
            return None
        workspace = request.workspace.absolute()
        encoding = Encoding.of(request.encoder, context.base, workspace)
        sharding = Sharding(self._executor, workspace, encoding, self._threads, request.shards, finds=joins)
        return sharding.of_stage(stage.name, resolved.to_json(), inputs, context.splits["train"].text_bytes)

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
            keep_only(self.request.workspace, context.encoded)
        if PACK.name not in needed:
            self._warn_of_old_rows(context)
        return self.manifest

    def _open(self, needed: set[str], *, shard: bool = False) -> Context:
        """Open and hash the corpus. Returns what the stages work with; another base's stage is added to `needed`."""
        request = self.request
        choice = choose_base(request, self.manifest, self.reporter, shard=shard)
        if not shard and (needed or request.tokenizer):
            for stage in tokenizer_stages(choice, self.manifest, request.encoder, dry_run=request.dry_run):
                self._stages.insert(0, stage)
                self._resolved[stage.name] = choice.resolved
                needed.add(stage.name)
        pool = EncoderPool(request.encoder, choice.base)
        if not self.manifest.stages and not request.dry_run and not self._is_divided:
            pool.warm()  # everything will be made: load one while the source is hashed
        corpus = self._open_corpus()
        splits = corpus.splits() if corpus else {}
        digests = corpus.digests() if corpus else dict.fromkeys(DATASET_NAMES, "(not downloaded)")
        encoded = {} if request.dry_run else encoded_splits(
            splits, digests, pool, request.workers, request.workspace, say=self.reporter.say,
            keep=request.keep_tokens, passes=0 if self._is_divided else len({COUNT.name, PACK.name} & needed),
        )  # fmt: skip
        return Context(
            manifest=self.manifest,
            corpus=corpus.describe() if corpus else None,
            digests=digests,
            encoded=encoded,
            reporter=self.reporter,
            splits=splits,
            base=choice.base,
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
        on_ray = request.executor == "ray" and not request.dry_run
        corpus = open_corpus(
            request.workspace, wanted, workers=request.workers, offline=request.offline or request.dry_run,
            reporter=self.reporter, executor=self._executor if on_ray else None, recorded=self._recorded,
        )  # fmt: skip
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
            sharding = self._sharding(stage, context, resolved, inputs)
            outputs, figures = stage.make(replace(context, begin=begin, sharding=sharding), resolved.value)
            self.manifest.enter(name, StageRecord(settings, inputs, outputs, plain(figures)))
            remove_shards(self.request.workspace, name)
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
