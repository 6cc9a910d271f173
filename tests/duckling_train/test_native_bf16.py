"""A processor that only emulates bf16 is known as such, and the demo then trains in float32 and says why."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from duckling_train import precision


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
