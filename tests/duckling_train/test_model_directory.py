"""A run's `model/` is at home in transformers: it opens, generates in batches and pipelines, and nothing warns.

The models here are untrained: what they say does not matter, how they are opened does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import read_mapping
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.config import TrainConfig
from duckling_train.model import build_model
from duckling_train.runs import layout as places
from duckling_train.runs.generate import name_special_tokens
from tests.support.train import Ran, environment

ROWS, CONTEXT = 512, 64


def test_the_folder_says_how_it_is_opened_and_that_works(run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (run.run_dir / "model" / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(run.run_dir / "model")
    exec(code, {})


OPEN_AND_GENERATE = """if True:
    import sys, transformers
    from duckling_data import DucklingTokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
    transformers.logging.disable_progress_bar()
    prompts = ["Once upon a time", "The dog"]
    for place in sys.argv[1:]:
        tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForCausalLM.from_pretrained(place)
        model.generate(**tokenizer(prompts[0], return_tensors="pt"), max_new_tokens=4)
        batch = tokenizer(prompts, padding=True, return_tensors="pt")
        output = model.generate(**batch, max_new_tokens=4, do_sample=False)
        together = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)
        for pipe in (pipeline("text-generation", model=place),
                     pipeline("text-generation", model=place, tokenizer=tokenizer)):
            pipe(prompts[0], max_new_tokens=4)
            for size in (1, 2):
                said = pipe(prompts, max_new_tokens=4, do_sample=False, batch_size=size, return_full_text=False)
                assert [one["generated_text"] for [one] in said] == together, (said, together)
        print(type(tokenizer).__name__, model.dtype)
"""


def mapping_with_eos(mapping: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping with `<|endoftext|>` in the place of its rarest live token."""
    compact = mapping["live_tokens"] - 1
    gpt2_to_compact = {key: value for key, value in mapping["gpt2_to_compact"].items() if value != compact}
    return {
        **mapping,
        "gpt2_to_compact": {**gpt2_to_compact, str(GPT2.eos_id): compact},
        "compact_to_gpt2": {**mapping["compact_to_gpt2"], str(compact): GPT2.eos_id},
        "live_token_ids": [*mapping["live_token_ids"][:-1], GPT2.eos_id],
    }


def saved(place: Path, mapping: dict[str, Any], dtype: torch.dtype = torch.float32, *, tied: bool = True) -> Path:
    """Write an untrained model's directory as a run does. Returns its path."""
    torch.manual_seed(0)
    config = TrainConfig(vocab_size=ROWS, n_positions=CONTEXT, n_embd=16, tied=tied)
    model = build_model(config).to(dtype)
    tokenizer = DucklingTokenizer.for_model(mapping, CONTEXT)
    name_special_tokens(model, tokenizer)
    places.save_model(place, model, tokenizer)
    return place / places.MODEL


@pytest.fixture(scope="module")
def plain(tiny_workspace: Path) -> dict[str, Any]:
    return dict(read_mapping(tiny_workspace / "token_mapping.json"))


def test_it_opens_and_generates_without_a_word_of_warning(plain: dict[str, Any], tmp_path: Path) -> None:
    directories = [
        saved(tmp_path / "plain", plain),
        saved(tmp_path / "eos", mapping_with_eos(plain)),
        saved(tmp_path / "untied", plain, tied=False),
        saved(tmp_path / "bf16", plain, torch.bfloat16),
    ]
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AND_GENERATE, *map(str, directories)],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    dtypes = ["float32", "float32", "float32", "bfloat16"]
    assert (done.stdout, done.stderr) == ("".join(f"DucklingTokenizer torch.{dtype}\n" for dtype in dtypes), "")


def test_the_special_ids_are_the_tokenizers_and_rows_of_the_model(plain: dict[str, Any], tmp_path: Path) -> None:
    for name, mapping, end in (("plain", plain, None), ("eos", mapping_with_eos(plain), plain["live_tokens"] - 1)):
        place = saved(tmp_path / name, mapping)
        for file in ("config.json", "generation_config.json"):
            content = json.loads((place / file).read_text())
            assert content.get("bos_token_id") is None
            assert content.get("eos_token_id") == end
            assert content["pad_token_id"] == ROWS - 1  # dead: no text holds it


def test_generation_ends_where_the_model_says_so(plain: dict[str, Any], tmp_path: Path) -> None:
    place = saved(tmp_path, mapping_with_eos(plain))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), DucklingTokenizer.from_pretrained(place)
    with torch.no_grad():  # the last LayerNorm's bias alone makes the logits: the end token has the largest
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(100 * model.transformer.wte.weight[tokenizer.eos_token_id])
    ids = tokenizer.encode("The dog")
    output = model.generate(torch.tensor([ids]), max_new_tokens=9, do_sample=False)[0].tolist()
    assert output == [*ids, tokenizer.eos_token_id]


def test_naming_the_special_tokens_changes_no_weight_and_no_logit(plain: dict[str, Any]) -> None:
    config = TrainConfig(vocab_size=ROWS, n_positions=CONTEXT, n_embd=16)
    models: list[GPT2LMHeadModel] = []
    for named in (False, True):
        torch.manual_seed(0)
        models.append(build_model(config))
        if named:
            name_special_tokens(models[-1], DucklingTokenizer.for_model(mapping_with_eos(plain), CONTEXT))
    ids = torch.tensor([[ROWS - 1, 447, 3, 5]])
    before, after = (model(ids, labels=ids) for model in models)
    assert torch.equal(before.logits, after.logits)
    assert before.loss == after.loss


def test_a_runs_model_pads_and_knows_its_context(run: Ran) -> None:
    tokenizer = DucklingTokenizer.from_pretrained(run.run_dir / "model")
    assert (tokenizer.pad_token_id, tokenizer.padding_side, tokenizer.model_max_length) == (8191, "left", 512)
    assert run.json("model/generation_config.json")["pad_token_id"] == 8191
