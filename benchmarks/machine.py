"""What a benchmark's figures were measured on; imported by every script here, also in a peer's own environment."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "asimd")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


def machine(*packages: str) -> dict[str, object]:
    """CPU, its flags, cores, thread settings, load, Python, commit, and the versions of ``packages`` where installed.

    The load average is there because a figure taken beside other jobs is worth less.
    """
    model, flags = platform.processor() or platform.machine(), []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        model = fields.get("model name", model)
        have = fields.get("flags", fields.get("Features", "")).split()
        flags = [flag for flag in CPU_FLAGS if flag in have]
    return {
        "cpu": model,
        "flags": flags,
        "cores": os.cpu_count(),
        **{name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "commit": _commit(),
        **versions(*packages),
    }


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages, without importing them; those that are not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
