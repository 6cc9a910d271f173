"""`inspect-embedding` measures the embedding of any model's safetensors: each figure as a slow restatement has it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from duckling_data.base.progress import Reporter
from duckling_train.cli import main
from duckling_train.dynamics.indicators import NAMES, indicators
from duckling_train.embedding.figures import QUANTILES, inspect
from duckling_train.embedding.text import ranges
from duckling_train.ids import read_ids
from tests.support.lattice_rows import bf16_keys, crowded, distance, slow_components, slow_groups
from tests.support.train import FP32, TINY_SHAPE, duckling_train

TABLE = torch.from_numpy(crowded(7, 90, 6, groups=9, spread=1, base=0x3F80 - 700, far=3))
RANGES = [range(40, 44), range(7, 8)]
UNUSED = [*range(40, 44), 7]
INPUT, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Recorder(Reporter):
    """Keeps each bar's total and what it was moved by."""

    quiet: bool = True
    bars: list[tuple[str, int, str, list[int]]] = field(default_factory=list)

    def bar(self, what: str, total: int, unit: str) -> Any:
        moved: list[int] = []
        self.bars.append((what, total, unit, moved))
        bar = super().bar(what, total, unit)
        bar.update = moved.append
        return bar


def written(folder: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return folder


def sharded(folder: Path, parts: list[dict[str, torch.Tensor]]) -> Path:
    """Write each part to a file of its own, with the index of them all."""
    files = {f"model-{number}-of-{len(parts)}.safetensors": part for number, part in enumerate(parts, 1)}
    for name, part in files.items():
        written(folder, part, name)
    index = {"metadata": {"total_size": 1}, "weight_map": {key: name for name, part in files.items() for key in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def others() -> dict[str, torch.Tensor]:
    """What a model holds besides."""
    return {"model.norm.weight": torch.ones(6), "model.layers.0.mlp.up.weight": torch.ones(4, 6)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_figure_is_that_of_a_slow_restatement(tmp_path: Path, dtype: str) -> None:
    stored = (TABLE * (1 + 2**-10 * (torch.arange(90) % 4 == 0))[:, None]).to(DTYPES[dtype])
    place = written(tmp_path, others() | {INPUT: stored}) / "model.safetensors"
    (found,) = inspect(place, unused=RANGES, top=5).matrices
    w = stored.float().numpy()
    assert (found.role, found.tensor, found.dtype, found.shape) == ("input", INPUT, dtype, [90, 6])
    lengths = [math.hypot(*row) for row in w.tolist()]
    expected = {f"{q:g}": pytest.approx(np.quantile(lengths, q)) for q in QUANTILES}
    assert found.norms == expected | {"mean": pytest.approx(math.fsum(lengths) / 90)}
    mean = [math.fsum(column) / 90 for column in w.T.tolist()]
    apart = math.fsum(math.dist(row, mean) for row in w.tolist()) / 90
    shift = (found.mean_norm, found.mean_distance, found.mean_shift)
    assert shift == pytest.approx((math.hypot(*mean), apart, math.hypot(*mean) / apart))
    assert found.identical_float32 == slow_groups([row.tobytes() for row in w])
    groups = slow_groups(bf16_keys(w))
    assert found.identical_bf16 == groups
    pairs = [[i, j] for i in range(len(groups)) for j in range(i + 1, len(groups))]
    firsts = [w[group[0]].tolist() for group in groups]
    assert found.adjacent == [[i, j] for i, j in pairs if distance(firsts[i], firsts[j]) == 1]
    assert len(groups) > 2
    sizes = np.bincount(slow_components(w)).tolist()
    singletons = sizes.count(1)
    assert found.components == {"number": len(sizes), "largest": max(sizes), "singletons": singletons}
    values = indicators(w, np.array(UNUSED))  # which have an oracle of their own
    for name in NAMES:
        of: list[float] = getattr(values, name).tolist()
        order = sorted((value, row) for row, value in enumerate(of) if row not in UNUSED)[:5]
        assert [(near.value, near.id, near.token) for near in found.indicators[name]] == [
            (*pair, None) for pair in order
        ]
    assert found.detectability == []


def test_a_file_a_directory_and_shards_give_the_same_figures(tmp_path: Path) -> None:
    tensors = others() | {INPUT: TABLE}
    whole = written(tmp_path / "whole", tensors)
    parts = sharded(tmp_path / "parts", [others(), {INPUT: TABLE}])
    found = [inspect(place).matrices[0] for place in (whole, whole / "model.safetensors", parts)]
    measured = [{**vars(each), "file": Path(each.file).name} for each in found]
    assert measured[0] == measured[1] == measured[2] | {"file": "model.safetensors"}
    assert measured[2]["file"] == "model-2-of-2.safetensors"


def test_an_output_matrix_is_measured_where_it_differs(tmp_path: Path) -> None:
    untied = sharded(tmp_path / "untied", [{INPUT: TABLE}, {HEAD: TABLE[:80] * 2}])
    found = inspect(untied, unused=[range(3, 4), range(85, 86)])
    assert (found.output, [each.role for each in found.matrices]) == ("separate", ["input", "output"])
    assert found.matrices[1].shape == [80, 6]  # which id 85 is no row of
    head = inspect(untied, tensor=HEAD, unused=[range(3, 4)])
    assert (head.output, head.matrices[0].role) == ("not looked for", "chosen")
    assert head.matrices[0].indicators == found.matrices[1].indicators
    equal = written(tmp_path / "equal", {INPUT: TABLE, HEAD: TABLE.clone()})
    assert (inspect(equal).output, len(inspect(equal).matrices)) == ("equal to the input", 1)
    zero, minus = torch.zeros(4, 6), -torch.zeros(4, 6)
    signs = written(tmp_path / "signs", {INPUT: zero, HEAD: minus})
    assert inspect(signs).output == "separate"
    assert inspect(written(tmp_path / "tied", {INPUT: TABLE})).output == "absent (tied)"


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (["transformer.wte.weight", "transformer.wpe.weight"], ["transformer.wte.weight"]),
        (["wte.weight", "h.0.attn.output.weight"], ["wte.weight"]),
        ([INPUT, HEAD], [INPUT, HEAD]),
        (["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"],
         ["bert.embeddings.word_embeddings.weight"]),
        (["tok_embeddings.weight", "output.weight"], ["tok_embeddings.weight", "output.weight"]),
        (["gpt_neox.embed_in.weight", "embed_out.weight"], ["gpt_neox.embed_in.weight", "embed_out.weight"]),
        (["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"], ["shared.weight"]),
        (["backbone.embeddings.weight"], ["backbone.embeddings.weight"]),
    ],
)  # fmt: skip
def test_the_embedding_is_found_by_its_name(tmp_path: Path, tensors: list[str], expected: list[str]) -> None:
    place = written(tmp_path, {name: TABLE[: 80 + number].clone() for number, name in enumerate(tensors)})
    assert [each.tensor for each in inspect(place).matrices] == expected


def test_rows_that_are_all_the_same_have_no_mean_shift(tmp_path: Path) -> None:
    place = written(tmp_path, {INPUT: torch.full((5, 3), 0.25)})
    (found,) = inspect(place, unused=[range(1)]).matrices
    assert (found.mean_shift, found.mean_distance) == (None, 0)
    assert (found.identical_float32, found.components["number"]) == ([[0, 1, 2, 3, 4]], 1)


def test_each_pass_over_the_rows_moves_a_bar_to_its_end(tmp_path: Path) -> None:
    inspect(written(tmp_path, {INPUT: TABLE}), unused=[range(1, 2)], reporter=(recorder := Recorder()))
    assert len(recorder.bars) == 9
    for what, total, unit, moved in recorder.bars:
        assert (what.startswith(f"{INPUT}: "), total, unit, sum(moved)) == (True, 90, "rows", 90), what


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["inspect-embedding", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    return out


def test_the_command_prints_a_report_or_all_figures_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = sharded(tmp_path / "m", [{INPUT: TABLE}, {HEAD: TABLE * 2}])
    options = ("--unused", "40:44,7", "--top", "3")
    shown = json.loads(said(capsys, place, *options, "--json"))
    assert shown == json.loads(json.dumps(inspect(place, unused=RANGES, top=3).json()))
    report = said(capsys, place, *options)
    for matrix in shown["matrices"]:
        assert f"{matrix['role']} matrix {matrix['tensor']}: 90 x 6, float32" in report
        assert f"min {matrix['norms']['0']:.5g}," in report
        assert f"{matrix['components']['number']}, the largest {matrix['components']['largest']}," in report
        largest = max(matrix["identical_bf16"], key=len)
        assert f"    {len(largest)} rows: {ranges(largest)}\n" in report
        for near in (near for name in NAMES for near in matrix["indicators"][name]):
            assert f"{near['id']:>7}  {near['value']:.8g}" in report
    assert "unused ids, as given: 5" in report
    assert "output matrix: separate" in report
    without = said(capsys, place)
    assert "no unused ids are known: --unused IDS gives some" in without
    assert "1 - cos" not in without


def test_a_run_is_inspected_by_its_name_and_path_and_its_dead_ids_are_known(
    tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "w" / "runs" / "first"
    ran = duckling_train(run, "-w", tiny_workspace, *TINY_SHAPE, *FP32, "--steps", "2")
    assert ran.status == 0, ran.stderr
    by_name = json.loads(said(capsys, "first", "-w", tmp_path / "w", "--json"))
    assert by_name == json.loads(said(capsys, run, "--json")) == json.loads(said(capsys, run / "model", "--json"))
    assert (by_name["tokenizer"], by_name["proposed"]) == ("token_mapping.json", {"dead": [*range(448, 512)]})
    (found,) = by_name["matrices"]
    assert (found["shape"], by_name["unused"]) == ([512, 16], [*range(448, 512)])
    assert {each["references"] for each in found["detectability"]} == {0, 1, 8}
    tokens = {near["id"]: near["token"] for name in NAMES for near in found["indicators"][name]}
    assert tokens
    assert all(token < 448 and text for token, text in tokens.items())
    report = said(capsys, run)
    assert "64 dead: 448:512" in report
    assert "how well the dead rows are found" in report


@pytest.mark.parametrize("ids", [[5], [1, 2, 3], [0, 2, 3, 9], [*range(4, 40, 3)]])
def test_ranges_are_read_as_they_are_written(ids: list[int]) -> None:
    assert [number for each in read_ids(ranges(ids), "ids") for number in each] == ids
