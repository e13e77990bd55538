"""Memory of long training on a CPU."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHURN = """
import gc
import numpy as np
from lite_chex.model.hardware import return_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

np.ones(30 * 2**17)  # freed: glibc keeps blocks of up to this size from now on
before, pins = resident(), []
blocks = []
for _ in range(30):
    blocks.append(np.ones(10 * 2**17))  # 10 MiB
    pins.append(bytearray(100_000))  # what stays in between
del blocks
gc.collect()
kept = resident() - before
return_freed_memory()
print(kept, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a call of glibc")
def test_freed_tensors_go_back_to_the_system() -> None:
    found = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=True)
    kept, after = map(float, found.stdout.split())
    assert kept > 200  # MiB: what is to be mended
    assert after < 30
