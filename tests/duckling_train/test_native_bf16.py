"""A processor that only emulates bf16 is known as such, and the demo then trains in float32 and says why."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from duckling_train import model, precision


@pytest.mark.parametrize(
    ("capability", "instructions", "native"),
    [
        ("AVX512", True, True),
        ("SVE256", True, True),
        ("AVX512", False, False),
        ("AVX2", True, False),
        ("NO AVX", True, False),
    ],
)
def test_bf16_is_native_where_torch_and_its_kernels_have_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, instructions: bool, native: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: instructions, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert precision.native_bf16() is native


def test_a_processor_held_to_avx2_has_no_native_bf16() -> None:
    code = "from duckling_train.precision import native_bf16; print(native_bf16())"
    held = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=held, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("device", "native", "float32"), [("cpu", True, False), ("cuda", False, False), ("cpu", False, True)]
)
def test_the_demo_trains_in_float32_where_bf16_is_emulated_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str, native: bool, float32: bool
) -> None:
    monkeypatch.setattr(model, "resolve_device", lambda asked: device)
    monkeypatch.setattr(precision, "native_bf16", lambda: native)
    demo = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "demo.py"))
    assert demo["precision"]() == (["--precision", "fp32"] if float32 else [])
    lines = capsys.readouterr().out.split("\n")
    assert [line for line in lines if line] == (
        ["Training in float32: this processor has no native bf16; emulated, a step takes about 8 times as long."]
        if float32
        else []
    )
