"""The compiled parts of the fast engine compute what those in torch do, and are refused where they cannot be had."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_train.config import TrainConfig
from duckling_train.engines import choose_engine
from duckling_train.engines.fast import compiled
from duckling_train.engines.fast.arithmetic import ARITHMETICS, FLOAT32, NATIVE, Arithmetic
from duckling_train.engines.fast.attention import CausalAttention
from duckling_train.engines.fast.compiled import CompiledAttention, CompiledGelu, CompiledHead
from duckling_train.engines.fast.head import Head
from duckling_train.runs.resume import read_config, resume
from duckling_train.runs.train import train

pytestmark = pytest.mark.skipif(not compiled.usable(FLOAT32), reason="no C++ compiler")
USABLE = [name for name in ARITHMETICS if compiled.usable(name)]
CPU = torch.device("cpu")


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference over that of what is expected."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def allowed(arithmetic: Arithmetic) -> float:
    """float32's sums are taken in another order; in bf16 some results are rounded to the neighbour."""
    return 2e-6 if arithmetic.low == torch.float32 else 4e-3


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize(
    ("sequences", "heads", "context", "width", "masked"),
    [(2, 2, 128, 32, False), (3, 1, 1, 5, False), (1, 3, 65, 33, False), (5, 2, 70, 16, True), (2, 1, 130, 64, True)],
)
def test_attention_and_its_gradient(
    name: str, sequences: int, heads: int, context: int, width: int, masked: bool
) -> None:
    arithmetic = ARITHMETICS[name]
    torch.manual_seed(1)
    given = torch.randn(sequences, context, 3 * heads * width).to(arithmetic.low)
    d_out = torch.randn(sequences, context, heads * width).to(arithmetic.low)
    mask = None
    if masked:  # stories of 9 tokens
        story = torch.arange(context) // 9
        mask = ((story[:, None] == story) & torch.ones(context, context).tril().bool()).expand(sequences, 1, -1, -1)
    results = []
    for threads, attention in ((1, CausalAttention), (1, CompiledAttention), (3, CompiledAttention)):
        torch.set_num_threads(threads)
        joined = given.clone().requires_grad_()
        out = attention.apply(joined, heads, mask, arithmetic)
        out.backward(d_out)
        results.append((out.detach(), joined.grad))
    for plain, alone, together in zip(*results, strict=True):
        assert plain is not None
        assert alone is not None
        assert together is not None
        assert error(alone, plain) < allowed(arithmetic)
        assert torch.equal(alone, together), "the threads change the bits"


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize(("rows", "vocabulary", "width"), [(64, 512, 32), (1, 7, 3), (75, 1003, 20), (300, 8200, 129)])
def test_the_softmax_and_its_gradients(name: str, rows: int, vocabulary: int, width: int) -> None:
    arithmetic = ARITHMETICS[name]
    torch.manual_seed(2)
    hidden, weight = arithmetic.operand(torch.randn(rows, width)), torch.randn(vocabulary, width) * 0.3
    targets = torch.randint(0, vocabulary, (rows,))
    targets[1::5] = -1
    into, total = torch.full((vocabulary, width), torch.nan), torch.ones(vocabulary)
    loss, d_hidden = Head(arithmetic, vocabulary, CPU)(hidden, arithmetic.operand(weight), targets, into, total)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        own_into, own_total = torch.full((vocabulary, width), torch.nan), torch.ones(vocabulary)
        own_loss, own_d_hidden = CompiledHead(arithmetic)(hidden, weight, targets, own_into, own_total)
        assert float(own_loss) == pytest.approx(float(loss), rel=1e-6)
        assert error(own_d_hidden, d_hidden) < allowed(arithmetic)
        assert error(own_into, into) < allowed(arithmetic)
        assert error(own_total, total) < 1e-6
        if threads == 1:
            first = own_d_hidden, own_into, own_total
    assert torch.equal(first[0], own_d_hidden), "the threads change the bits"
    assert torch.equal(first[1], own_into), "the threads change the bits"
    assert torch.equal(first[2], own_total), "the threads change the bits"


@pytest.mark.parametrize("name", USABLE)
def test_a_watched_step_has_the_same_bits(name: str) -> None:
    arithmetic, hidden, weight = ARITHMETICS[name], torch.randn(40, 8), torch.randn(100, 8)
    found = []
    for total in (None, torch.zeros(100)):
        into = torch.empty(100, 8)
        found.append(
            (*CompiledHead(arithmetic)(arithmetic.operand(hidden), weight, torch.arange(40), into, total), into)
        )
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))


def test_gelu_is_that_of_float64_to_float32_precision() -> None:
    x = torch.cat([torch.linspace(-12, 12, 40_001), torch.tensor([0.0, -0.0, 1e-30, 80.0, -80.0])]).requires_grad_()
    exact = x.detach().double().requires_grad_()
    found, expected = CompiledGelu.apply(x), torch.nn.functional.gelu(exact)  # type: ignore[no-untyped-call]
    found.sum().backward()
    expected.sum().backward()
    assert x.grad is not None
    assert exact.grad is not None
    assert float((found - expected).detach().abs().max()) < 1e-6
    assert float((x.grad - exact.grad).abs().max()) < 5e-7


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_seen(name: str, bad: float) -> None:
    arithmetic, hidden = ARITHMETICS[name], torch.randn(20, 8)
    hidden[7, 2] = bad
    loss, _ = CompiledHead(arithmetic)(
        arithmetic.operand(hidden), torch.randn(50, 8), torch.arange(20), torch.empty(50, 8)
    )
    assert not torch.isfinite(loss)
    joined = torch.randn(1, 30, 24).to(arithmetic.low)
    joined[0, 5] = bad
    out = CompiledAttention.apply(joined, 2, None, arithmetic)
    assert not torch.isfinite(out[0, 5:]).any()
    assert not torch.isfinite(CompiledGelu.apply(torch.tensor([bad])))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("flags", ["-march=haswell", "-march=x86-64"])
def test_narrower_vectors_compute_the_same(flags: str, tmp_path: Path) -> None:
    """AVX2's and SSE2's, on a processor that has wider ones; without AVX-512 there is no bf16, and it is said."""
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("a processor without AVX2")
    environment = os.environ | {"CXXFLAGS": flags, "XDG_CACHE_HOME": str(tmp_path)}
    tests = [f"{__file__}::{name}" for name in ("test_attention_and_its_gradient", "test_the_softmax_and_its_gradients",
             "test_gelu_is_that_of_float64_to_float32_precision", "test_what_is_not_finite_is_seen")]  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "-o", "addopts=", *tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert len([*tmp_path.rglob("*.so")]) == 1


@pytest.mark.skipif(not compiled.usable(NATIVE), reason="a processor without bf16, or with AMX")
@pytest.mark.parametrize(("flag", "can"), [("-mno-avx512bf16", False), ("-mamx-bf16", True)])
def test_bf16_is_taken_by_itself_only_with_the_processors_own_and_without_amx(
    flag: str, can: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXXFLAGS", f"-O0 {flag}")
    compiled.load.cache_clear()
    try:
        assert [compiled.usable(name) for name in (FLOAT32, NATIVE)] == [True, False]
        with contextlib.nullcontext() if can else pytest.raises(InputError, match="has no bf16 for this processor"):
            compiled.need(NATIVE)
    finally:
        compiled.load.cache_clear()


class TestWhereItCannotBeHad:
    @pytest.fixture(autouse=True)
    def _a_cache_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CXXFLAGS", "-O0")  # which compiles faster
        compiled.load.cache_clear()
        yield
        compiled.load.cache_clear()

    def chosen(self, compile: str = "auto") -> str:
        """Return what a new run takes."""
        return choose_engine(TrainConfig(device="cpu", precision="fp32", compile=compile))[0].compile

    def test_auto_trains_without_it_and_says_so(
        self, tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert self.chosen() == "no"
        shape = {"n_positions": 64, "vocab_size": 512, "n_embd": 16, "device": "cpu", "threads": 1}
        train(TrainConfig(steps=1, precision="fp32", eval_rows=0, **shape), tiny_workspace, tmp_path / "run")
        told = capsys.readouterr().err.splitlines()
        assert told[0] == "engine fast: it has every setting given; products in float32, not compiled"

    def test_yes_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(InputError) as refusal:
            self.chosen("yes")
        assert str(refusal.value) == (
            "compile is yes, and compiling fails ([Errno 2] No such file or directory: 'no-such-compiler'): "
            "install a C++ compiler (g++), or give compile='no'"
        )

    def test_a_compiler_that_fails_is_quoted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXXFLAGS", "-march=nonesuch")
        with pytest.raises(InputError, match="nonesuch") as refusal:
            self.chosen("yes")
        assert "\n" not in str(refusal.value)

    def test_the_reference_and_accelerators_have_none(self) -> None:
        for settings, expected in (({"engine": "reference", "device": "cpu"}, "which is the fast engine's"),
                                   ({"engine": "fast", "device": "cuda"}, "which is for a CPU")):  # fmt: skip
            with pytest.raises(InputError, match=f"compile is yes, {expected}"):
                choose_engine(TrainConfig(compile="yes", **settings))

    def test_a_run_of_before_goes_on_without(self) -> None:
        """Its settings have an arithmetic and no `compile`: its bits are torch's."""
        before = TrainConfig(device="cpu", precision="fp32", engine="fast", arithmetic=FLOAT32)
        assert choose_engine(before)[0].compile == "auto"

    def test_a_compiled_run_goes_on_compiled_or_not_at_all(
        self, tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = tmp_path / "run"
        shape = {"n_positions": 64, "vocab_size": 512, "n_embd": 16, "device": "cpu", "threads": 1}
        train(TrainConfig(steps=3, precision="fp32", schedule="constant", **shape), tiny_workspace, run, quiet=True)
        assert read_config(run)[0].compile == "yes"
        compiled.load.cache_clear()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(InputError) as refusal:
            resume(run, tiny_workspace, {"steps": 5}, quiet=True)
        failed = "compiling fails ([Errno 2] No such file or directory: 'no-such-compiler')"
        advice = "go on with it where it was started"
        assert str(refusal.value) == f"{run} trains on the engine fast; compile is yes, and {failed}: {advice}"
        monkeypatch.delenv("CXX")
        assert resume(run, tiny_workspace, {"steps": 5}, quiet=True)["steps"] == 5

    def test_it_is_compiled_once(self, tmp_path: Path) -> None:
        assert self.chosen() == "yes"
        (library,) = tmp_path.rglob("*.so")
        made = library.stat()
        compiled.load.cache_clear()
        assert self.chosen() == "yes"
        assert library.stat().st_mtime_ns == made.st_mtime_ns
        assert [path.name for path in library.parent.iterdir()] == [library.name]

    def test_auto_trains_without_it_where_the_cache_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "duckling").write_text("in the way")
        assert self.chosen() == "no"
        with pytest.raises(InputError, match="compiling fails"):
            self.chosen("yes")
