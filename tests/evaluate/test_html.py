"""The HTML report: one well-formed file that fetches nothing and shows names as text."""

from __future__ import annotations

import builtins
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from label_tables import random_labels
from rich.console import Console

from lite_chex.errors import UserError
from lite_chex.evaluate.inputs import EvalInput
from lite_chex.evaluate.output import Outputs, write_outputs
from lite_chex.findings import PAPER13


@pytest.fixture
def data() -> EvalInput:
    rng = np.random.default_rng(0)
    gold, pred = random_labels(PAPER13, 40, rng, skip=0.1)
    probabilities = rng.dirichlet(np.ones(4), size=gold.shape).astype(np.float32)
    return EvalInput(
        gold,
        {"<script>alert(1)</script>": pred, "plain": gold.clip(0)},
        PAPER13,
        lengths=np.arange(40),
        probabilities={"plain": probabilities},
        format_errors={"plain": np.arange(40) == 3},
    )


def test_one_self_contained_page(data, tmp_path):
    pytest.importorskip("matplotlib")
    target = tmp_path / "report.html"
    write_outputs(data, Outputs(html=target, worst=3, published=True), Console(quiet=True), bootstrap=30)
    page = target.read_text()
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]+"', page.replace("xlink:", ""))
    assert not re.findall(r"url\((?!#)", page)
    assert page.count("<svg") == 4
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for anchor in re.findall(r'<a href="#([^"]+)"', page):
        assert anchor in ids
    assert "no answer" in page
    tables = re.findall(r"<table>.*?</table>", page, flags=re.DOTALL)
    assert len(tables) >= 10
    for table in tables:
        ElementTree.fromstring(re.sub(r"class=(\w+)", r'class="\1"', table).replace("<br>", "<br/>"))


def test_without_matplotlib_a_sentence_says_how_to_get_it(data, tmp_path, monkeypatch):
    real = builtins.__import__

    def no_matplotlib(name: str, *arguments: object, **options: object) -> object:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(UserError, match="matplotlib"):
        write_outputs(data, Outputs(html=tmp_path / "report.html"), Console(quiet=True), bootstrap=0)
    assert not (tmp_path / "report.html").exists()
