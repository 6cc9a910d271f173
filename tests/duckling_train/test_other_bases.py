"""Training on rows of another base than GPT-2 and of more ids than uint16 holds: the rows' type changes no bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.tokens.base import BASE_FILE
from duckling_data.tokens.mapping import MAPPING_FILE
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.config import TrainConfig
from duckling_train.data import open_workspace
from duckling_train.embedding.tokens import open_vocabulary
from duckling_train.runs.measured import mapping_of, tokens_of
from duckling_train.runs.open import open_plain
from duckling_train.runs.resume import read_config
from tests.support.bases import llama_3_like
from tests.support.data import build, rows_of, write_jsonl
from tests.support.train import FP32, command_here

SHAPE = ("--width", "4", "--layers", "1", "--heads", "1", "--batch-size", "2", "--device", "cpu", *FP32)
LIVE = 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Workspaces whose rows hold the same ids, as uint16 and, with more dead ids behind them, as uint32."""
    folder = tmp_path_factory.mktemp("bases")
    (folder / "base.json").write_bytes(llama_3_like())
    write_jsonl(folder / "stories.jsonl", demo_stories(0, 40).to_pylist())
    for name, dead in (("narrow", 65_536 - LIVE), ("wide", 65_600 - LIVE)):
        build(
            folder / name, folder / "stories.jsonl", tokenizer=folder / "base.json", sample="all", live=LIVE,
            dead=dead, ctx=16,
        )  # fmt: skip
    return {name: folder / name for name in ("narrow", "wide")}


def test_the_two_workspaces_hold_the_same_ids(made: dict[str, Path]) -> None:
    narrow, wide = (rows_of(place) for place in made.values())
    assert (narrow.dtype, wide.dtype) == (np.uint16, np.uint32)
    np.testing.assert_array_equal(narrow, wide)


def test_rows_of_uint32_train_on_both_engines_and_the_model_is_complete_without_the_workspace(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, losses = Path(shutil.copytree(made["wide"], tmp_path / "w")), []
    for engine in ("fast", "reference"):
        run = tmp_path / engine
        given = ("-w", workspace, "--steps", "2", "--logging-steps", "1", "--engine", engine)
        assert command_here("--out", run, *given, *SHAPE) == 0, capsys.readouterr().err
        losses.append([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    mapping, counts, base = mapping_of(run, workspace, read_config(run)[1])
    tokens = tokens_of(np.arange(3), mapping, counts, base)
    assert tokens["token"] == [base.token_bytes(token).decode() for token in tokens["gpt2_id"]]
    assert tokens["count"] == sorted(tokens["count"], reverse=True)
    shutil.rmtree(workspace)
    assert command_here("verify", run) == 0, capsys.readouterr().err
    vocabulary = open_vocabulary(run / "model", 65_600)
    assert vocabulary is not None
    assert [vocabulary.text(row) for row in range(3)] == tokens["token"]
    assert (run / "model" / BASE_FILE).read_bytes() == llama_3_like()
    model, tokenizer = open_plain(run)
    assert model.transformer.wte.weight.shape == (65_600, 4)
    assert tokenizer.decode(tokenizer.encode(" the")) == " the"
    capsys.readouterr()
    assert command_here("generate", run, "--prompt", " the", "--tokens", "3") == 0
    assert capsys.readouterr().out.startswith(" the")


def test_the_seeds_dataset_and_tokenizer_are_of_the_base(made: dict[str, Path]) -> None:
    from duckling_train.experiment import dataset_of

    config = TrainConfig(vocab_size=65_600, n_positions=16, batch_size=2)
    data = open_workspace(made["wide"], config)
    dataset = dataset_of(data.rows, 16, data.payload_sha256)
    assert dataset.features["input_ids"].feature.dtype == "uint32"
    np.testing.assert_array_equal(dataset[2]["input_ids"], data.rows[2]["input_ids"])
    tokenizer = DucklingTokenizer(data.mapping, base=data.base)
    assert tokenizer.encode("the cat") == DucklingTokenizer(made["wide"] / MAPPING_FILE).encode("the cat")
