"""CheXbert checkpoints: the official layout is loaded, read as the official program reads it, and never cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14, NO_FINDING, PAPER13, Certainty, FindingSet
from lite_chex.labelers.chexbert import CheXbertLabeler
from lite_chex.labelers.registry import LabelerOptions, make_labeler

WORD_LIST = "no effusion edema heart is large . , the left lung clear and a"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORD_LIST.split()]
REPORTS = ["No effusion.", "the heart is large , edema\nand a  left effusion .", "the lung is clear", "unheard words"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint as the official training program saves one, with its vocabulary beside it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("chexbert")
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=24,
        initializer_range=0.5,  # large, so that reports differ
    )
    bert = BertModel(config)
    state = {f"module.bert.{k}": v for k, v in bert.state_dict().items()}
    state["module.bert.embeddings.position_ids"] = torch.arange(24).unsqueeze(0)  # saved by transformers 2.5
    for i in range(14):
        state[f"module.linear_heads.{i}.weight"] = torch.randn(2 if i == 13 else 4, 128)
        state[f"module.linear_heads.{i}.bias"] = torch.randn(2 if i == 13 else 4)
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}}, folder / "chexbert.pth")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    bert.save_pretrained(folder / "bert")
    return folder / "chexbert.pth"


def official_codes(checkpoint: Path, report: str) -> list[float | None]:
    """The official program's way, report by report: class numbers, then 0 -> blank, 2 -> 0, 3 -> -1."""
    state = torch.load(checkpoint, weights_only=True)["model_state_dict"]
    bert = BertModel.from_pretrained(checkpoint.parent / "bert").eval()
    tokenizer = BertTokenizer(vocab=str(checkpoint.parent / "vocab.txt"))
    ids = [2, *tokenizer.convert_tokens_to_ids(tokenizer.tokenize(" ".join(report.split()))), 3]
    with torch.no_grad():
        cls_vector = bert(torch.tensor([ids]))[0][0, 0]
    codes: list[float | None] = []
    for i in range(14):
        weight, bias = state[f"module.linear_heads.{i}.weight"], state[f"module.linear_heads.{i}.bias"]
        codes.append({0: None, 1: 1.0, 2: 0.0, 3: -1.0}[int((weight @ cls_vector + bias).argmax())])
    return codes


CERTAINTY = {None: Certainty.ABSENT, 1.0: Certainty.POSITIVE, 0.0: Certainty.NEGATIVE, -1.0: Certainty.UNCERTAIN}


def test_labels_are_those_of_the_official_program(checkpoint: Path) -> None:
    batch = CheXbertLabeler.load(checkpoint, batch_size=3).label(REPORTS)
    expected = [[CERTAINTY[c] for c in official_codes(checkpoint, r)] for r in REPORTS]
    assert batch.values.tolist() == expected
    assert len({tuple(row) for row in expected}) > 1, "reports must differ for this test to say anything"
    assert {int(v) for row in expected for v in row} == {0, 1, 2, 3}
    assert batch.probabilities is not None
    np.testing.assert_allclose(batch.probabilities.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(batch.probabilities.argmax(axis=-1), batch.values)
    assert (batch.probabilities[:, -1, [Certainty.NEGATIVE, Certainty.UNCERTAIN]] == 0).all()


def test_a_report_does_not_depend_on_the_batch_it_is_in(checkpoint: Path) -> None:
    labeler = CheXbertLabeler.load(checkpoint)
    together = labeler.label(REPORTS).probabilities
    alone = [labeler.label([r]).probabilities for r in REPORTS]
    np.testing.assert_allclose(together, np.concatenate([a for a in alone if a is not None]), atol=1e-5)


def test_the_papers_findings_are_picked_by_name(checkpoint: Path) -> None:
    all14 = CheXbertLabeler.load(checkpoint).label(REPORTS).values
    paper = make_labeler("chexbert", LabelerOptions(str(checkpoint), PAPER13)).label(REPORTS).values
    np.testing.assert_array_equal(paper, all14[:, [CHEXPERT14.index(n) for n in PAPER13.names]])
    with pytest.raises(UserError, match='no finding "Rickets"'):
        CheXbertLabeler.load(checkpoint, findings=FindingSet("own", ("Rickets", NO_FINDING)))


def test_a_long_report_is_an_error_and_never_cut(checkpoint: Path) -> None:
    batch = CheXbertLabeler.load(checkpoint).label(["heart " * 22, "heart " * 23])
    assert batch.errors == (None, "too long for the model: 25 tokens, at most 24")


def test_files_that_are_no_checkpoint_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        CheXbertLabeler.load(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"model_state_dict": {"module.bert.x": torch.zeros(2)}}, tmp_path / "other.pth")
    torch.save({"model_state_dict": tmp_path}, tmp_path / "code.pth")  # a pickled object: weights_only refuses it
    torch.save({"model_state_dict": {"module.bert.embeddings.word_embeddings.weight": "x"}}, tmp_path / "words.pth")
    for name in ("text.pth", "other.pth", "code.pth", "words.pth"):
        with pytest.raises(UserError, match=f"{name}: not a CheXbert checkpoint"):
            CheXbertLabeler.load(tmp_path / name)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS[:-1]))
    (tmp_path / "chexbert.pth").write_bytes(checkpoint.read_bytes())
    with pytest.raises(UserError, match=r"its vocabulary has 18 words and chexbert\.pth wants 19"):
        CheXbertLabeler.load(tmp_path / "chexbert.pth")


def test_the_fingerprint_follows_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["model_state_dict"]["module.linear_heads.0.bias"] += 1
    torch.save(state, tmp_path / "chexbert.pth")
    (tmp_path / "vocab.txt").write_bytes((checkpoint.parent / "vocab.txt").read_bytes())
    assert (
        CheXbertLabeler.load(checkpoint).fingerprint() != CheXbertLabeler.load(tmp_path / "chexbert.pth").fingerprint()
    )
