"""What this machine is: card, memory, CPU flags, and which dtype is fast on it."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from pathlib import Path


def gpu_memory_gb() -> float | None:
    """Total memory of the first CUDA device in GB (10^9 bytes are not meant: GiB), or None without one."""
    places = ("/proc/driver/nvidia", "/dev/dxg")  # the second under WSL
    driver = any(Path(p).exists() for p in places) or platform.system() == "Windows"
    if not driver and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        return None  # without importing torch
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0).total_memory / 2**30


@lru_cache
def cpu_flags() -> frozenset[str]:
    """Flags of the first CPU that matter for matrix products (from /proc/cpuinfo; empty elsewhere)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = next((x for x in text.splitlines() if x.startswith("flags")), "")
    return frozenset(f for f in line.split() if f.startswith(("avx", "amx", "fma")))


def choose_dtype(requested: str) -> tuple[str, str]:
    """Compute dtype and the reason for it: what the recipe asks for, else the fast one of this machine.

    bf16 where the card or the CPU multiplies in it, fp16 on older cards (T4), fp32 otherwise: on a CPU
    without AVX512-BF16 or AMX, bf16 was measured four times slower than fp32.
    """
    if requested != "auto":
        return requested, "the recipe says so"
    import torch

    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the card multiplies in bf16"
        return "float16", "the card has no bf16"
    if cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return "bfloat16", "the CPU multiplies in bf16"
    return "float32", "the CPU has no bf16 instructions"


def machine() -> dict[str, object]:
    """A description of this machine for cards, tables and benchmark files."""
    import torch

    found: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_count": os.cpu_count(),
        "cpu_flags": sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8"}),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
        found["gpu_memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    return found


def return_freed_memory() -> None:
    """Give this process's freed memory back to the system (glibc; nothing elsewhere, or with a GPU's allocator).

    Batches of many widths leave the heap in pieces: what the next batch cannot use stays resident, and the process
    grows with each new width. Called every few steps it costs a few percent of the time; keeping large tensors off
    the heap (mallopt's M_MMAP_THRESHOLD) costs 13 to 30%, since their pages are made anew for every tensor.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_gb() -> float:
    """Peak memory so far: of the CUDA device where there is one, else the process's peak RSS (GiB)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
