"""Peak memory of this process above what it had with the base weights loaded (Linux: /proc; CUDA: the allocator)."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_mb(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak) in MiB."""
    line = next(x for x in STATUS.read_text(encoding="utf-8").splitlines() if x.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


class PeakMemory:
    """Starts counting when made: right after ``model``, the one copy of the base that everybody needs."""

    def __init__(self, model: Any) -> None:
        import torch

        with torch.no_grad():
            # Weights may be mapped from the file: reading each brings them into memory now.
            for parameter in model.parameters():
                parameter.float().sum().item()
        gc.collect()
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated() / 2**20
        else:
            CLEAR.write_text("5", encoding="ascii")  # resets the peak, which loading may have raised
            self.base = resident_mb("VmRSS")

    def measured(self) -> dict[str, float]:
        """MiB: base, peak, and peak above base."""
        import torch

        peak = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else resident_mb("VmHWM")
        return {"base_mb": self.base, "peak_mb": peak, "above_mb": peak - self.base}
