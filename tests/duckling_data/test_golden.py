"""`verify` compares a workspace with golden digests in a file, and with an original's published figures."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError
from duckling_data.base.records import FileRecord, plain
from duckling_data.stages.count import CountFigures, LengthHistogram
from duckling_data.stages.packer import PackFigures, SplitFigures
from duckling_data.stages.vocab import VocabFigures
from duckling_data.tokens.mapping import mapping_bytes
from duckling_data.verify import golden_digests, write_golden
from duckling_data.verify.golden import golden_differences, reference_lines
from duckling_data.workspace.manifest import CorpusRecord, Manifest, SplitRecord, StageRecord, StoryFile
from tests.support.data import Cli, found, read_json, verified

# Golden digests


@pytest.fixture
def golden(demo: Path, tmp_path: Path) -> Path:
    write_golden(Manifest(demo), tmp_path / "golden.json")
    return tmp_path / "golden.json"


def test_golden_digests_are_written_of_a_workspace_that_holds_and_of_no_other(
    cli: Cli, demo: Path, tmp_path: Path
) -> None:
    golden = tmp_path / "golden.json"
    assert cli("verify", "-w", demo, "--write-golden", golden).exit_code == 0
    assert read_json(golden) == {"source": "demo", "digests": golden_digests(Manifest(demo))}
    assert "golden       ok" in cli("verify", "-w", demo, "--golden", golden).stdout
    (demo / "token_mapping.json").write_bytes((demo / "token_mapping.json").read_bytes() + b" ")
    found(demo, "token_mapping.json has ", write_golden=tmp_path / "damaged.json")
    assert not (tmp_path / "damaged.json").exists()


def test_golden_digests_are_compared_or_written_and_in_a_folder_that_is_there(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exclude each other"):
        verified(demo, write_golden=tmp_path / "x.json", golden=tmp_path / "y.json")
    with pytest.raises(InputError, match=str(tmp_path / "no")):
        write_golden(Manifest(demo), tmp_path / "no" / "golden.json")


@pytest.mark.parametrize(
    "name",
    ["counts_sha256", "mapping_sha256", "tokenized_dataset_payload_sha256", "tokenized_validation_payload_sha256"],
)
def test_a_golden_digest_that_differs_or_is_missing_is_named(demo: Path, golden: Path, name: str) -> None:
    content, manifest = read_json(golden), Manifest(demo)
    assert list(golden_differences(manifest, golden)) == []
    content["digests"][name] = "0" * 64
    golden.write_text(json.dumps(content))
    (difference,) = golden_differences(manifest, golden)
    assert difference.startswith(f"{name} is ")
    del content["digests"][name]
    golden.write_text(json.dumps(content))
    (difference,) = golden_differences(manifest, golden)
    assert difference.endswith("expected None")


def test_a_golden_digest_that_differs_fails_the_check(demo: Path, golden: Path) -> None:
    golden.write_text(golden.read_text().replace('"counts_sha256": "', '"counts_sha256": "0'))
    assert found(demo, golden=golden).count("golden: counts_sha256 is ") == 1


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"digests": 3}'])
def test_a_golden_file_that_is_none_is_refused(demo: Path, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "golden.json").write_text(content)
    with pytest.raises(InputError, match=r"golden\.json: "):
        verified(demo, golden=tmp_path / "golden.json")


def test_golden_digests_of_a_record_that_lists_no_mapping_are_refused(demo: Path) -> None:
    manifest = Manifest(demo)
    outputs = manifest.stages["build-vocab"].outputs
    outputs["other.json"] = outputs.pop("token_mapping.json")
    with pytest.raises(InputError, match="'build-vocab' is not made"):
        golden_digests(manifest)


def test_golden_digests_of_a_workspace_without_rows_are_refused(demo: Path) -> None:
    manifest = Manifest(demo)
    del manifest.stages["pack"]
    with pytest.raises(InputError, match="'pack' is not made"):
        golden_digests(manifest)


# The figures of an original


REFERENCE = resources.files("duckling_data.verify") / "duckling-ii.json"


def test_a_demo_is_not_duckling_ii_and_each_figure_is_said(cli: Cli, demo: Path) -> None:
    result = cli("verify", "-w", demo, "--reference", "duckling-ii")
    assert result.exit_code == 1
    assert "figures differ, the first: corpus train stories expected 2,119,719, found 200\n" in result.stderr
    said = [line for line in result.stdout.splitlines() if line.startswith("duckling-ii")]
    assert len(said) == len(json.loads(REFERENCE.read_text())["figures"])
    assert said[-1].split()[:5] == ["duckling-ii", "NO:", "tokens", "in", "rows"]


def test_a_workspace_with_duckling_iis_figures_has_them_all_and_one_that_is_off_is_seen(tmp_path: Path) -> None:
    expected = json.loads(REFERENCE.read_text())["figures"]
    manifest = as_duckling_ii(tmp_path, expected)
    assert [line for line, holds in reference_lines(manifest, "duckling-ii") if not holds] == []
    manifest.stages["pack"].figures["splits"]["train"]["rows"] += 1
    wrong = [line.split("expected")[0].strip() for line, holds in reference_lines(manifest, "duckling-ii") if not holds]
    assert wrong == ["rows", "tokens in rows"]


def as_duckling_ii(workspace: Path, expected: dict[str, Any]) -> Manifest:
    """A manifest and a mapping that say what the original's would."""
    known = {int(name.split()[-1]): gpt2 for name, gpt2 in expected.items() if name.startswith("mapping compact ")}
    others = (gpt2 for gpt2 in range(50_000) if gpt2 not in known.values())
    live = [known[compact] if compact in known else next(others) for compact in range(6144)]
    mapping = {
        "live_tokens": 6144, "dead_tokens": 2048, "total_vocab": 8192, "unk_id": 0,
        "gpt2_to_compact": {str(gpt2): compact for compact, gpt2 in enumerate(live)},
        "compact_to_gpt2": {str(compact): gpt2 for compact, gpt2 in enumerate(live)},
        "live_token_ids": live,
    }  # fmt: skip
    (workspace / "token_mapping.json").write_bytes(mapping_bytes(mapping))
    sizes = {name.split()[1]: size for name, size in expected.items() if name.endswith(" bytes")}
    manifest = Manifest(workspace)
    manifest.corpus = CorpusRecord(
        "tinystories",
        {
            split: SplitRecord(
                expected[f"corpus {split} stories"],
                text_field="text",
                files=tuple(StoryFile(n, size, "", 0) for n, size in sizes.items() if f"data/{split}-" in n),
            )
            for split in ("train", "validation")
        },
    )
    made = {"some file": FileRecord(1, "0" * 64)}
    levels = {"90.0%": 951, "95.0%": 1904, "99.0%": 4480, "99.5%": 5911, "99.9%": 10100}
    count = CountFigures(0, 100_000, 0, 0, 22_205_468, 17_852, levels, LengthHistogram(16, []), "")
    pack = PackFigures({"train": SplitFigures(0, 0, 0, 0, 0.0, 0, 921_519, 0, "")})
    vocab = VocabFigures(6144, 2048, 0, 0, 0.995480848)
    manifest.stages = {
        "count": StageRecord({}, {}, made, plain(count)),
        "build-vocab": StageRecord({}, {}, made, plain(vocab)),
        "pack": StageRecord({"ctx": 512}, {}, made, plain(pack)),
    }
    return manifest
