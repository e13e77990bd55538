"""The memory benchmark runs the real command on files that it writes."""

from __future__ import annotations

import csv
from pathlib import Path

import label_memory
import pytest


@pytest.mark.slow
def test_peak_memory_of_the_command(tmp_path: Path) -> None:
    model = label_memory.fresh_adapter(tmp_path / "adapter")
    row = label_memory.label(model, 12, tmp_path)
    assert row.reports == 12
    assert 100 < row.peak_mb < 4000  # torch and a 2M-parameter model
    with (tmp_path / "12_labels.csv").open(encoding="utf-8") as file:
        assert [r["study_id"] for r in csv.DictReader(file)] == [f"s{i}" for i in range(12)]


def test_failed_command_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 1"):
        label_memory.label(tmp_path, 2, tmp_path)
