"""What `inspect-embedding` cannot read, or should not, is refused in one line; nothing in a model's folder is run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from duckling_data.base.errors import InputError
from duckling_train.cli import main
from duckling_train.embedding.figures import inspect
from tests.support.headers import HEADERS

INPUT = "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"
TABLE = torch.arange(24.0).reshape(8, 3)


def model(folder: Path, tensors: dict[str, torch.Tensor] | None = None, name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file({INPUT: TABLE} if tensors is None else tensors, folder / name)
    return folder


def index(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / INDEX).write_text(json.dumps({"weight_map": {INPUT: "model.safetensors"} | files}))
    return folder


def refused(place: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        inspect(place, **options)
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_a_hostile_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for place in (path, tmp_path):
        assert refused(place).startswith(f"{path}: not a safetensors file that can be read (")


@pytest.mark.parametrize(
    ("tensors", "options", "says"),
    [
        ({"a.weight": TABLE, "b": TABLE[:2].clone(), "c": TABLE[0].clone()}, {},
         "has no tensor with the name of an input embedding; choose a matrix with --tensor NAME: "
         "'a.weight' [8, 3], 'b' [2, 3]"),
        ({"c": TABLE[0].clone()}, {}, "choose a matrix with --tensor NAME: none"),
        ({str(n): TABLE[n % 8 :].clone() for n in range(11)}, {}, "[4, 3] and 3 more"),
        ({INPUT: TABLE}, {"tensor": "x\n"}, r"has no tensor 'x\n'; choose a matrix with --tensor NAME: '"),
        ({f"{side}.embed_tokens.weight": TABLE.clone() for side in ("a", "b")}, {},
         "2 tensors may be the input embedding ('a.embed_tokens.weight', 'b.embed_tokens.weight'); choose with "),
        ({INPUT: TABLE, "a.lm_head.weight": TABLE.clone(), "b.lm_head.weight": TABLE.clone()}, {},
         "2 tensors may be the output matrix"),
        ({INPUT: TABLE.to(torch.int8)}, {}, f"tensor '{INPUT}' is I8 [8, 3], expected a matrix of BF16, F16 or F32"),
        ({INPUT: TABLE.double()}, {}, "is F64 [8, 3], expected a matrix of"),
        ({INPUT: TABLE.flatten()}, {}, "is F32 [24], expected a matrix of"),
        ({INPUT: TABLE[:0].clone()}, {}, "is F32 [0, 3], expected a matrix of"),
        ({INPUT: TABLE / 0}, {}, f"tensor {INPUT}: row 0 has the value nan; expected weights that are finite in bf16"),
        ({INPUT: TABLE, "lm_head.weight": TABLE * 2e37}, {}, "tensor lm_head.weight: row 5 has the value 3.4e+38"),
        ({INPUT: TABLE}, {"unused": [range(2, 3), range(8, 9)]}, "--unused has 8; the ids end at 7"),
    ],
)  # fmt: skip
def test_what_is_no_embedding_is_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], options: dict[str, Any], says: str
) -> None:
    assert says in refused(model(tmp_path / "m", tensors), **options)


def test_a_directory_holds_one_file_or_an_index(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({INPUT: 1}))
    assert f"{tmp_path}: 0 safetensors files (none), expected one, or {INDEX}" in refused(tmp_path)
    assert "not a safetensors file" in refused(tmp_path / "pytorch_model.bin")
    model(tmp_path, name="a.safetensors")
    model(tmp_path, name="b.safetensors")
    assert "2 safetensors files (a.safetensors, b.safetensors), expected one" in refused(tmp_path)


def linked(name: str) -> Callable[[Path, Path], object]:
    """Return what makes the file `name` of a whole model a link to a copy outside."""

    def make(folder: Path, outside: Path) -> None:
        (model(folder) / "token_mapping.json").write_text("{}")
        index(folder)
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return make


@pytest.mark.parametrize(
    "make",
    [
        *map(linked, ("model.safetensors", INDEX, "token_mapping.json")),
        lambda folder, outside: index(model(folder), **{INPUT: "../elsewhere"}),
        lambda folder, outside: index(model(folder), **{INPUT: str(outside)}),
        lambda folder, outside: [folder.mkdir(), (folder / "a.safetensors").symlink_to(outside)],
    ],
)  # fmt: skip
def test_a_link_or_index_that_leads_out_of_the_directory_is_refused(
    tmp_path: Path, make: Callable[[Path, Path], object]
) -> None:
    outside = tmp_path / "elsewhere"
    save_file({INPUT: TABLE}, outside)
    make(folder := tmp_path / "m", outside)
    assert f"leads out of {folder}; expected a file in it" in refused(folder)


def test_a_link_inside_the_directory_and_one_to_it_are_followed(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", name="real")
    (folder / "model.safetensors").symlink_to("real")
    (tmp_path / "other").symlink_to(folder)
    assert inspect(tmp_path / "other").matrices[0].shape == [8, 3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[]", "Expected `object`, got `array`; download or write the file again"),
        ('{"weight_map": {"a": 1}}', "Expected `str`, got `int`"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the duplicate key 'a'"),
        ('{"weight_map": {}}', "has no tensor with the name of an input embedding"),
        (json.dumps({"weight_map": {INPUT: "a\0b"}}), r"'a\x00b' cannot be a file"),
        (json.dumps({"weight_map": {INPUT: "x" * 9999}}), "cannot be"),
        (json.dumps({"weight_map": {INPUT: "absent.safetensors"}}), "absent.safetensors: not a safetensors file that"),
        (json.dumps({"weight_map": {INPUT: "other"}}), f"has no tensor '{INPUT}', which its index says is there"),
    ],
)  # fmt: skip
def test_a_damaged_index_is_refused(tmp_path: Path, content: str, says: str) -> None:
    model(tmp_path, {"other": TABLE}, name="other")
    (tmp_path / INDEX).write_text(content)
    assert says in refused(tmp_path)


def test_another_part_that_is_not_there_is_not_missed(tmp_path: Path) -> None:
    index(model(tmp_path), **{"lm.layers.0": "absent.safetensors"})
    assert inspect(tmp_path).matrices[0].shape == [8, 3]
    assert "choose a matrix with --tensor NAME: " in refused(tmp_path, tensor="x")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    assert "a pipe or device, expected a regular file" in refused(tmp_path)


DEEP = '{"model": ' * 100_000
BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": []}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"\xff"),
        ("tokenizer.json", DEEP.encode()),
        ("tokenizer.json", json.dumps({"version": "1.0", "model": BPE | {"merges": [["a", "b"]]}}).encode()),
        ("tokenizer.json", json.dumps({"version": "1.0", "model": BPE | {"vocab": {"a": -1}}}).encode()),
        ("vocab.json", b'{"a": -1}'),
        ("vocab.json", b'{"a": 99999999999}'),
        ("vocab.json", b'{"a": 0, "a": 1}'),
        ("merges.txt", b"a b c\n"),
        ("merges.txt", b"a c\n"),
        ("added_tokens.json", b"[]"),
        ("token_mapping.json", b"{}"),
    ],
)  # fmt: skip
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    model(tmp_path)
    if name != "token_mapping.json":
        (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
        (tmp_path / "merges.txt").write_text("a b\n")
        assert inspect(tmp_path).tokenizer == "vocab.json"
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path).startswith(str(tmp_path))


@pytest.mark.parametrize("given", ["nowhere", "no\0where", "x" * 9999])
def test_a_path_that_is_neither_is_refused_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["inspect-embedding", given, "-w", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert "no such file or directory, nor a run of " in err


def test_a_run_without_a_model_says_how_it_gets_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["inspect-embedding", str(tmp_path)])
    assert (stop.value.code, "has no model yet" in capsys.readouterr().err) == (2, True)
