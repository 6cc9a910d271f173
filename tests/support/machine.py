"""What the machine is, and how fast it multiplies: what the figures of a measurement are held against."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def machine(device: str, threads: int | None) -> dict[str, Any]:
    """Return what the machine is, and how fast it multiplies two large square matrices, GFLOP/s."""
    import torch

    from duckling_train.precision import native_bf16

    if threads:
        torch.set_num_threads(threads)
    native = device == "cuda" or native_bf16()
    largest = 8192 if device == "cuda" else 2048
    sizes = {torch.float32: largest, torch.bfloat16: largest if native else 512}  # emulated bf16 is slow
    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "native_bf16": native,
        "peak_gflops": {
            str(dtype).removeprefix("torch."): gemm_gflops(dtype, device, size) for dtype, size in sizes.items()
        },
    }


def gemm_gflops(dtype: Any, device: str, size: int, repeats: int = 5) -> float:
    """Return the largest rate of a few products of two square matrices, in GFLOP/s; the first one warms up."""
    import torch

    left, right = torch.randn(2, size, size, device=device).to(dtype)
    seconds = []
    for _ in range(repeats + 1):
        synchronize()
        began = time.perf_counter()
        torch.mm(left, right)
        synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds[1:]) / 1e9


def processor() -> str:
    """Return the processor's name, as the system has it."""
    if sys.platform == "darwin":
        told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return told.stdout.strip() or platform.machine()
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_mb() -> float:
    """Return the most memory that this process has had, in MB."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):  # Linux' ru_maxrss counts the process that started this one, too
            return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def synchronize() -> None:
    """Wait for an accelerator."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
