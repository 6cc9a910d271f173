"""`duckling-train generate`: what it says depends on the run, the prompt and the sampling, and on nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_data.tokens.mapping import mapping_bytes
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.config import TrainConfig
from duckling_train.model import build_model
from duckling_train.runs import layout as places
from duckling_train.runs.generate import (
    NEW_TOKENS,
    PROMPTS,
    Sampling,
    continuations,
    continued,
    greedy,
    name_special_tokens,
    samples_text,
)
from duckling_train.runs.open import open_model
from tests.support.mappings import make_mapping
from tests.support.train import STEPS, Ran, command, environment, sentences

CONTEXT = 64
KNOWN = " ".join(sentences(1)[0].split()[:4])


def make_run(place: Path, workspace: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a finished run whose model is not trained, and whose logits are far apart. Returns its directory."""
    torch.manual_seed(0)
    config = TrainConfig(vocab_size=512, n_positions=CONTEXT, n_embd=16)
    model = build_model(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    tokenizer = DucklingTokenizer.for_model(workspace / "token_mapping.json", CONTEXT)
    name_special_tokens(model, tokenizer)
    place.mkdir(parents=True)
    (place / places.CONFIG).write_text(json.dumps(config.resolved()))
    places.save_model(place, model, tokenizer)
    places.write_manifest(place, {})
    return place


@pytest.fixture(scope="module")
def untrained(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("generate") / "untrained", tiny_workspace)


def generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("generate", *arguments), capture_output=True, text=True, env=environment(), check=False
    )


def test_the_same_seed_gives_the_same_text_whatever_stands_beside_it(untrained: Path) -> None:
    sampling = Sampling(tokens=12, temperature=1.5, top_k=40, seed=3)
    prompts = [KNOWN, KNOWN[:6], KNOWN[:12]]
    texts = list(continuations(untrained, prompts, sampling))
    assert texts == list(continuations(untrained, prompts, sampling))
    assert texts[::-1] == list(continuations(untrained, prompts[::-1], sampling))
    assert texts[1:2] == list(continuations(untrained, prompts[1:2], sampling))
    assert texts != list(continuations(untrained, prompts, Sampling(tokens=12, temperature=1.5, top_k=40, seed=4)))


def test_neither_threads_nor_torchs_random_state_matter_or_change(untrained: Path) -> None:
    model, tokenizer = open_model(untrained)
    ids, sampling = tokenizer.encode(KNOWN), Sampling(tokens=20)
    threads = torch.get_num_threads()
    said = []
    try:
        for count, seed in ((1, 0), (2, 1)):
            torch.set_num_threads(count)
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            said.append(continued(model, ids, sampling))
            assert torch.equal(torch.get_rng_state(), before)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert said[0] == said[1]


def test_greedy_is_the_most_likely_token_each_time(untrained: Path) -> None:
    model, tokenizer = open_model(untrained)
    ids = tokenizer.encode(KNOWN)
    expected = list(ids)
    for _ in range(10):
        with torch.no_grad():
            expected.append(int(model(torch.tensor([expected])).logits[0, -1].argmax()))
    assert continued(model, ids, Sampling(tokens=10, greedy=True)) == expected
    assert continued(model, ids, Sampling(tokens=10, top_k=1)) == expected


def test_top_k_and_temperature_shape_what_is_drawn(untrained: Path) -> None:
    model, tokenizer = open_model(untrained)
    ids = tokenizer.encode(KNOWN)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]

    def drawn(**settings: Any) -> set[int]:
        return {continued(model, ids, Sampling(tokens=1, seed=seed, **settings))[-1] for seed in range(60)}

    assert drawn(top_k=3, temperature=100.0) == set(logits.topk(3).indices.tolist())
    assert drawn(temperature=1e-4) == {int(logits.argmax())}
    assert len(drawn(temperature=100.0)) > 40  # nearly even over 512 tokens: no hidden top_k of 50, or of fewer


def test_a_bf16_runs_model_goes_on_too(tiny_workspace: Path, tmp_path: Path) -> None:
    place = make_run(tmp_path / "bf16", tiny_workspace, torch.bfloat16)
    assert open_model(place)[0].dtype == torch.bfloat16
    (text,) = continuations(place, [KNOWN], Sampling(tokens=5))
    assert text.startswith(KNOWN)


def test_prompt_and_new_tokens_must_fit_the_context(untrained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    length = len(open_model(untrained)[1].encode(KNOWN))
    assert list(continuations(untrained, [KNOWN], Sampling(tokens=CONTEXT - length)))
    capfd.readouterr()
    message = f"has {length} tokens; with --tokens {CONTEXT - length + 1} that makes 65, and the model's context is 64"
    with pytest.raises(InputError, match=message):
        continuations(untrained, [KNOWN], Sampling(tokens=CONTEXT - length + 1))
    with pytest.raises(InputError, match="that makes 101, and the model's context is 64"):
        continuations(untrained, ["." * 10, " a" * 100], Sampling(tokens=1))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("prompt", "message"), [("", "--prompt is empty"), ("\udc80", "is not text in UTF-8")])
def test_what_cannot_be_gone_on_from_is_refused(untrained: Path, prompt: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        continuations(untrained, [KNOWN, prompt], Sampling(tokens=1))


NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(
    "bad",
    [{"tokens": 0}, {"temperature": 0.0}, {"temperature": NOT_A_NUMBER}, {"top_k": -1}, {"seed": -1}, {"seed": 2**32}],
)
def test_a_sampling_out_of_range_is_refused(bad: dict[str, Any]) -> None:
    flag = "--" + next(iter(bad)).replace("_", "-")
    with pytest.raises(InputError, match=f"{flag} is .*; it must be "):
        Sampling(**bad)


def test_unknown_tokens_are_counted_and_told(untrained: Path) -> None:
    tokenizer = open_model(untrained)[1]
    told: list[str] = []  # `..` is one GPT-2 token, and no live one
    list(continuations(untrained, [KNOWN, KNOWN + ".."], Sampling(tokens=1), told.append))
    length = len(tokenizer.encode(KNOWN)) + 1
    assert told == [f"1 of the {length} tokens of {KNOWN + '..'!r} are unknown: it reads {KNOWN + '.'!r}"]


def test_an_id_that_is_reserved_for_unknown_tokens_is_shown(tmp_path: Path) -> None:
    (tmp_path / "token_mapping.json").write_bytes(mapping_bytes(make_mapping("reserved", live=60, dead=452)))
    place = make_run(tmp_path / "run", tmp_path)
    told: list[str] = []
    (text,) = continuations(place, [" zebra"], Sampling(tokens=1), told.append)
    assert text.startswith("⟨unk⟩⟨unk⟩")
    assert told == ["2 of the 2 tokens of ' zebra' are unknown: it reads '⟨unk⟩⟨unk⟩'"]
    assert greedy(*open_model(place), " zebra", 1).startswith("⟨unk⟩⟨unk⟩")


def test_a_changed_or_missing_model_file_is_refused(tiny_workspace: Path, tmp_path: Path) -> None:
    place = make_run(tmp_path / "run", tiny_workspace)
    weights = place / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"model\.safetensors has SHA-256"):
        open_model(place)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        open_model(place)
    (place / "manifest.json").unlink()
    weights.write_bytes(content[:1000])
    with pytest.raises(InputError, match=rf"{place / 'model'} cannot be opened: "):
        open_model(place)


def test_samples_end_where_the_context_does(untrained: Path) -> None:
    model, tokenizer = open_model(untrained)
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        expected = continued(model, ids, Sampling(tokens=CONTEXT - len(ids), greedy=True))
        assert greedy(model, tokenizer, prompt, new_tokens=1000) == tokenizer.decode(expected)
    full = KNOWN * 30
    assert greedy(model, tokenizer, full) == tokenizer.decode(tokenizer.encode(full))


def test_greedy_says_what_samples_txt_holds(run: Ran) -> None:
    texts = continuations(run.run_dir, PROMPTS, Sampling(tokens=NEW_TOKENS, greedy=True))
    expected = "".join(f"> {prompt}\n{text}\n\n" for prompt, text in zip(PROMPTS, texts, strict=True))
    told, samples = (run.run_dir / "samples.txt").read_text().split("\n\n", 1)
    assert told.startswith(f"({STEPS} steps, too few for sentences: ")
    assert samples == expected == samples_text(*open_model(run.run_dir), steps=10_000)


def test_a_saved_model_generates_with_its_cache(run: Ran) -> None:
    model, _ = open_model(run.run_dir)
    assert model.config.use_cache
    assert model.generation_config.use_cache


def test_the_command_prints_the_texts_and_nothing_else(untrained: Path) -> None:
    prompts = [KNOWN, KNOWN + ".."]
    done = generate(untrained, "--prompt", prompts[0], "--prompt", prompts[1], "--tokens", "8", "--top-k", "5")
    told: list[str] = []
    texts = list(continuations(untrained, prompts, Sampling(tokens=8, top_k=5), told.append))
    assert (done.returncode, done.stdout) == (0, f"{texts[0]}\n\n{texts[1]}\n")
    assert done.stderr.splitlines() == told
    quiet = generate(untrained, "--prompt", prompts[1], "--tokens", "8", "--top-k", "5", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, f"{texts[1]}\n", "")


def test_greedy_with_what_it_would_ignore_is_refused(untrained: Path) -> None:
    for extra in (("--temperature", "1.0"), ("--top-k", "0")):
        done = generate(untrained, "--greedy", *extra)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"duckling-train: {extra[0]} does not go with --greedy.*\n", done.stderr)
