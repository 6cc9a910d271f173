"""Importing `DucklingTokenizer` makes `AutoTokenizer` open a folder that it was saved in, in any order of imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.tokenizer import DucklingTokenizer
from tests.support.mappings import STORIES, make_mapping

OPEN = "AutoTokenizer.from_pretrained(sys.argv[1])"
TOKENIZER = "from duckling_data import DucklingTokenizer"
ORDERS = {
    "DucklingTokenizer first": f"{TOKENIZER}; from transformers import AutoTokenizer",
    "AutoTokenizer first": f"from transformers import AutoTokenizer; {TOKENIZER}",
    "Trainer after the tokenizer": f"{TOKENIZER}; from transformers import Trainer, AutoTokenizer",
    "Trainer before": f"from transformers import Trainer; {TOKENIZER}; from transformers import AutoTokenizer",
    "duckling_train alone": "from duckling_train import duckling_ii; from transformers import AutoTokenizer",
    "AutoTokenizer anew": (
        f"{TOKENIZER}; import importlib; import transformers.models.auto.tokenization_auto as auto; "
        "AutoTokenizer = importlib.reload(auto).AutoTokenizer"
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tokenizer beside a GPT-2 configuration, as in a run's `model/`."""
    from transformers import GPT2Config

    place = tmp_path_factory.mktemp("model")
    DucklingTokenizer(make_mapping("most-frequent")).save_pretrained(place)
    config = GPT2Config(vocab_size=80, n_layer=1, n_head=1, n_embd=8, bos_token_id=None, eos_token_id=None)
    config.save_pretrained(place)
    return place


def child(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS.keys())
def test_auto_tokenizer_opens_a_folder_in_every_order_of_imports(folder: Path, imports: str) -> None:
    code = f"import sys; {imports}; t = {OPEN}; print(type(t).__name__, t.encode(sys.argv[2]))"
    done = child(code, folder, STORIES[0])
    expected = DucklingTokenizer.from_pretrained(folder).encode(STORIES[0])
    assert (done.stdout, done.stderr) == (f"DucklingTokenizer {expected}\n", "")


def test_without_the_import_the_class_is_unknown_to_auto_tokenizer(folder: Path) -> None:
    """Else the test above could not fail."""
    done = child(f"import sys; from transformers import AutoTokenizer; print(type({OPEN}).__name__)", folder)
    assert "DucklingTokenizer" not in done.stdout


def test_a_gpt2_model_of_others_keeps_its_own_tokenizer(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from duckling_data import DucklingTokenizer
        from transformers import AutoTokenizer, GPT2Config, GPT2TokenizerFast
        from duckling_data.base.gpt2_files import gpt2_merges, gpt2_vocabulary
        GPT2Config().save_pretrained(sys.argv[1])
        GPT2TokenizerFast(vocab=gpt2_vocabulary(), merges=gpt2_merges()).save_pretrained(sys.argv[1])
        print(type(AutoTokenizer.from_pretrained(sys.argv[1])).__name__)
    """
    assert child(code, tmp_path).stdout.startswith("GPT2Tokenizer")


def test_a_models_tokenizer_pads_on_the_left_with_what_no_text_holds(tmp_path: Path) -> None:
    DucklingTokenizer.for_model(make_mapping("reserved"), 16).save_pretrained(tmp_path)
    tokenizer = DucklingTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token_id, tokenizer.model_max_length, len(tokenizer)) == (79, 16, 80)
    short, long = tokenizer.encode("One"), tokenizer.encode("One day, she")
    batch = tokenizer(["One", "One day, she"], padding=True)
    assert batch["input_ids"] == [[79] * (len(long) - len(short)) + short, long]
    assert tokenizer.batch_decode(batch["input_ids"]) == [tokenizer.decode(short), tokenizer.decode(long)]


def test_where_every_id_has_a_token_padding_is_the_end_token_or_none() -> None:
    assert DucklingTokenizer.for_model(make_mapping("most-frequent", dead=0), 16).pad_token is None
    ends = DucklingTokenizer.for_model(make_mapping("most-frequent", dead=0, extra=(50256,)), 16)
    assert ends.pad_token_id == ends.eos_token_id == 59


def test_no_tokenizer_json_is_written_as_none_would_give_the_same_ids(tmp_path: Path) -> None:
    """GPT-2 merges in its whole vocabulary, and only then ids are mapped. Here single bytes and `th` are live."""

    def merged(vocabulary: dict[str, int], merges: list[tuple[str, str]], text: str) -> list[int]:
        found: list[int] = Tokenizer(BPE(vocabulary, merges)).encode(text).ids
        return found

    given = {"live": 257, "extra": (*range(256), GPT2.vocabulary["th"])}
    split, unknown = (DucklingTokenizer(make_mapping(policy, **given)) for policy in ("decompose", "most-frequent"))
    live = {token: compact for token, compact in split.get_vocab().items() if compact < 257}
    # By the merges of live tokens alone: GPT-2 joins `he` before `th`, and `in`, which is then one unknown token.
    assert split.tokenize("the") == ["t", "h", "e"]
    assert merged(live, [("t", "h")], "the") == [live["th"], live["e"]]
    assert unknown.encode("in") == [0]
    assert merged(live, [("t", "h")], "in") == [live["i"], live["n"]]
    # By all merges, with one id for all that are unknown: they are taken for each other.
    shared = {token: live.get(token, 0) for token in GPT2.vocabulary}
    assert unknown.encode("aab") == [live["a"], 0]  # `ab` is unknown
    assert merged(shared, GPT2.load_merges(), "aab") == [0]  # joined as if `ab` were another one
    unknown.save_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
