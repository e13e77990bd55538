"""The student: it learns a teacher's labels, keeps the rules of an answer, and is saved as safetensors."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors import safe_open
from word_labeler import WORDS, WordLabeler

from lite_chex.data.labels import write_labels
from lite_chex.data.records import LabelTable
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13
from lite_chex.labelers.registry import LabelerOptions, labeler_for_model, make_labeler
from lite_chex.labelers.student import StudentLabeler
from lite_chex.recipe import NEW_ENCODER, DistillSection
from lite_chex.train.distill import DistillSummary, TaughtFile, _read_corpus, distill
from lite_chex.train.run import complete_checkpoints

WORD_LIST = "no edema fracture there is heart lungs are clear normal with and the in of . small large left right"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORD_LIST.split()]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of a real layout, with safetensors weights and a tokenizer."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=40).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """800 reports and what the word labeler says of them; the last is too long, the one before has no label."""
    folder, draw = tmp_path_factory.mktemp("corpus"), random.Random(0)
    said = ["no {}", "there is {}", "lungs are clear"]
    filler = VOCABULARY[8:]  # makes nearly every text unlike the others, so that held-out texts are new

    def sentence(finding: str) -> str:
        return f"{draw.choice(said).format(finding)} {' '.join(draw.choices(filler, k=3))}"

    texts = [f"{sentence('edema')} . {sentence('fracture')} ." for _ in range(800)]
    texts.append("edema " * 50)
    with (folder / "reports.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "report"], *([f"s{i}", t] for i, t in enumerate(texts)), ["unlabelled", "edema"]]
        )
    values = WORDS.consistent(WordLabeler().label(texts).values)
    ids = [f"s{i}" for i in range(len(texts))]
    write_labels(folder / "labels.csv", LabelTable(WORDS, ids, values, np.ones(3, dtype=bool), "id"))
    return folder / "reports.csv", folder / "labels.csv"


def train(
    base: Path | str, corpus: tuple[Path, Path], output: Path, epochs: float, resume: bool = False
) -> DistillSummary:
    section = DistillSection(
        model_name_or_path=str(base), num_train_epochs=epochs, learning_rate=3e-3, validation_fraction=0.3
    )
    return distill([TaughtFile(*corpus)], section, WORDS, output, resume=resume, console=Console(quiet=True))


def test_the_student_learns_its_teacher(base: Path, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    summary = train(base, corpus, tmp_path / "student", 8)
    assert summary.train + summary.validation == 800
    assert summary.skipped == 2
    assert summary.mentioned > 0.95
    assert summary.macro_f1 > 0.9
    rows = [json.loads(line) for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert max(row["macro_f1"] for row in rows) == pytest.approx(summary.macro_f1, abs=1e-6)
    model = str(tmp_path / "student")
    labeler = make_labeler(labeler_for_model(model), LabelerOptions(model))
    assert labeler.findings.names == WORDS.names
    reports = [
        "no edema in the heart . there is fracture of left in .",
        "there is edema and small right . no fracture with the lungs .",
        "edema " * 50,
    ]
    batch = labeler.label(reports)
    np.testing.assert_array_equal(batch.values[:2], WORDS.consistent(WordLabeler().label(reports[:2]).values))
    assert batch.errors == (None, None, "too long for the model: 52 tokens, at most 40")
    assert batch.probabilities is not None
    # No Finding is forced to absent where another finding is positive: no decision, so probability 1.
    assert batch.probabilities[0, 2].tolist() == [0, 0, 0, 1]
    again = StudentLabeler.load(tmp_path / "student", batch_size=1).label(reports).probabilities
    np.testing.assert_allclose(batch.probabilities, again, atol=1e-5)
    with safe_open(tmp_path / "student" / "model.safetensors", "pt") as weights:
        assert {"heads.weight", "encoder.embeddings.word_embeddings.weight"} <= set(weights.keys())
    assert not list((tmp_path / "student").glob("*.bin"))
    with pytest.raises(UserError, match='never learnt "Enlarged Cardiomediastinum"'):
        StudentLabeler.load(tmp_path / "student", findings=PAPER13)


def test_a_teachers_labels_are_matched_by_the_named_id_column(base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    reports, labels = tmp_path / "reports.csv", tmp_path / "labels.csv"
    reports.write_text("Accession,report\n" + "".join(f"{i},edema {'heart ' * i}\n" for i in range(20)))
    values = np.array([[i % 2, 3, 3] for i in reversed(range(20))], dtype=np.int8)
    ids = [str(i) for i in reversed(range(20))]
    write_labels(labels, LabelTable(WORDS, ids, values, np.ones(3, dtype=bool), "Accession"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    read = _read_corpus([TaughtFile(reports, labels, id_column="Accession")], WORDS, tokenizer, 40, 0.5)
    assert read.labels[:, 0].tolist() == [i % 2 for i in range(20)]
    labels.write_text(labels.read_text().replace("Accession", "case"))
    with pytest.raises(UserError, match='its ids are row numbers, the reports\' are in column "Accession"'):
        _read_corpus([TaughtFile(reports, labels, id_column="Accession")], WORDS, tokenizer, 40, 0.5)


def test_the_same_seed_gives_the_same_student(base: Path, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(base, corpus, tmp_path / name, 0.2)
    assert StudentLabeler.load(tmp_path / "a").fingerprint() == StudentLabeler.load(tmp_path / "b").fingerprint()


def test_a_killed_run_resumes_to_the_same_student(base: Path, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    train(base, corpus, tmp_path / "whole", 4)
    script = f"""
from pathlib import Path
from lite_chex.train import distill
from test_student import train
train(Path({str(base)!r}), (Path({str(corpus[0])!r}), Path({str(corpus[1])!r})), Path({str(tmp_path / "killed")!r}), 4)
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path})
    deadline = time.monotonic() + 120
    while not complete_checkpoints(tmp_path / "killed" / "checkpoints"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "student.json").exists(), "the run was to be killed before its end"
    for name, left in (
        ("checkpoint-9998", None),
        ("checkpoint-9999", ""),
    ):  # as a kill in the middle of saving leaves it
        folder = tmp_path / "killed" / "checkpoints" / name
        folder.mkdir()
        if left is not None:
            (folder / "trainer_state.json").write_text(left)
    with pytest.raises(UserError, match="--resume goes on"):
        train(base, corpus, tmp_path / "killed", 4)
    with pytest.raises(UserError, match="options of the unfinished run were others"):
        train(base, corpus, tmp_path / "killed", 7, resume=True)
    train(base, corpus, tmp_path / "killed", 4, resume=True)
    digests = [StudentLabeler.load(tmp_path / name).fingerprint() for name in ("whole", "killed")]
    assert digests[0] == digests[1]
    assert not (tmp_path / "killed" / "checkpoints").exists()
    with pytest.raises(UserError, match="holds a finished student"):
        train(base, corpus, tmp_path / "killed", 4)


def test_reports_that_the_teacher_failed_on_teach_nothing(
    base: Path, corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(corpus[1].read_text())
    failed = "".join(f"{row},s{row},too long for the model\n" for row in range(100))
    Path(f"{labels}.errors.csv").write_text(f"row,id,reason\n{failed}")
    summary = train(base, (corpus[0], labels), tmp_path / "student", 0.1)
    assert summary.train + summary.validation == 700
    assert summary.skipped == 102


def test_a_new_encoder_takes_its_vocabulary_from_the_reports(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    summary = train(NEW_ENCODER, corpus, tmp_path / "student", 0.1)
    assert summary.train + summary.validation == 801  # it takes longer reports than the other base
    labeler = StudentLabeler.load(tmp_path / "student")
    assert labeler.label(["no edema . fracture"]).values.shape == (1, 3)
    assert "fracture" in (tmp_path / "student" / "tokenizer.json").read_text()


def test_what_cannot_be_learnt_from_is_refused(base: Path, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoder with safetensors weights"):
        train(tmp_path / "nowhere", corpus, tmp_path / "out", 1)
    strangers = tmp_path / "strangers.csv"
    strangers.write_text("id,Edema\nx1,1.0\n")
    with pytest.raises(UserError, match=r"strangers.csv: 0 of its ids have a report in .*both files must share ids"):
        train(base, (corpus[0], strangers), tmp_path / "out", 1)
    with pytest.raises(UserError, match="litechex distill wrote"):
        StudentLabeler.load(tmp_path)


def test_a_student_overwrites_nothing_else(base: Path, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        train(base, corpus, tmp_path, 1)
    with pytest.raises(UserError, match="a file of that name is there"):
        train(base, corpus, tmp_path / "adapter_config.json", 1)
    assert [f.name for f in tmp_path.iterdir()] == ["adapter_config.json"]
