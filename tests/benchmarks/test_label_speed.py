"""The labelling benchmark on a tiny model: every system in this process labels real reports, and is compared."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import label_speed as speed
import numpy as np
import pytest

from lite_chex.findings import PAPER13


def options(tmp_path: Path, **changes: object) -> argparse.Namespace:
    usual: dict[str, object] = {
        "adapter": None, "dtype": "float32", "reports": None, "count": 6, "batch_sizes": [1, 3], "rounds": 2,
        "threads": 1, "peers": [], "envs": tmp_path, "llama_server": None, "json": tmp_path / "speed.json",
    }  # fmt: skip
    return argparse.Namespace(**(usual | changes))


def test_all_systems_on_the_same_reports(tiny_base: Path, tmp_path: Path) -> None:
    figures = speed.run(options(tmp_path, model=str(tiny_base)))
    assert json.loads((tmp_path / "speed.json").read_text()) == json.loads(json.dumps(figures))
    found = {(s["system"], s["batch"]): s for s in figures["systems"]}
    names = (speed.GENERATE, speed.LIMIT, speed.OURS, speed.STEPWISE)  # fp32: there are no ties to check
    assert set(found) == {(n, b) for n in names for b in (1, 3)}
    for (name, batch), system in found.items():
        assert system["compared"] == 2 * batch
        assert all(s > 0 for s in system["seconds"])
        if name != speed.GENERATE:
            # The pass over the final answer, the decoder and the baseline in batches: all give the exact labels.
            assert system["same"] == system["compared"], name
            assert system["margins_where_different"] == []
        assert system["ratio_to_limit" if name == speed.LIMIT else "ratio_to_generate"] > 0
    assert found[speed.LIMIT, 3]["ratio_to_limit"] == 1
    assert all(1 <= p <= 4 for p in found[speed.OURS, 3]["passes"])
    assert 0.8 < figures["agreement"] < 1
    # generate made as many tokens as the answers have
    assert all(abs(t - figures["answer_tokens"]) < 20 for t in found[speed.GENERATE, 1]["tokens"])


def test_differing_labels_are_counted_with_their_margin(tiny_base: Path) -> None:
    task = speed.prepare(str(tiny_base), "float32", ["No pneumothorax.", "Small effusion."], with_rules=False)
    wrong = task.exact.values[1].copy()
    wrong[4] = (wrong[4] + 1) % 4
    timed = speed.Timed("x", 1)
    timed.note(task, [0, 1], [task.exact.values[0], wrong])
    scores = np.sort(task.exact.logits[1, 4])
    assert (timed.same, timed.compared) == (1, 2)
    assert timed.margins == [pytest.approx(float(scores[-1] - scores[-2]), abs=1e-6)]
    timed.note(task, [0], [None])  # unreadable
    assert (timed.same, timed.compared) == (1, 3)


def test_ratio_is_the_median_over_rounds() -> None:
    a, b = speed.Timed("a", 1, [1.0, 2.0, 4.0]), speed.Timed("b", 1, [2.0, 8.0, 4.0])
    assert speed.ratios([a, b], a, "b") == 2.0  # of 2, 4 and 1


def test_answer_ends_at_its_brace() -> None:
    labels = np.array([0, 1, 2, 3, 3, 3, 3, 3, 1, 1, 3, 3, 3], dtype=np.int8)
    read = speed.read_answer(" " + PAPER13.to_json(labels) + "} and more")
    assert read is not None
    assert read.tolist() == labels.tolist()
    assert speed.read_answer("no answer") is None


@pytest.mark.slow
def test_adapter_is_merged_and_drafted_for_by_the_rules(tmp_path: Path) -> None:
    from label_memory import fresh_adapter

    adapter = fresh_adapter(tmp_path / "adapter")
    figures = speed.run(options(tmp_path, model="unused", adapter=adapter, count=3, batch_sizes=[1], rounds=1))
    assert figures["draft"] == "the rule labeler's labels"
    assert figures["systems"][2]["same"] == 1
