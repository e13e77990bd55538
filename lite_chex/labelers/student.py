"""The student: a BERT-size encoder with one head of four certainties per finding (CheX-GPT's recipe).

It learns a teacher's labels of an unlabelled corpus (Gu et al., arXiv:2401.11505) and then labels
hundreds of reports a second on a CPU. A student's folder holds ``student.json``, the encoder's
``config.json``, the tokenizer and one ``model.safetensors`` with encoder and heads. Answers obey the
finding set's rules, as those of the LLM do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.errors import UserError
from lite_chex.findings import Certainty, FindingSet
from lite_chex.labelers.base import LabelBatch
from lite_chex.labelers.committed import file_digest
from lite_chex.labelers.encoder import device, label_batch, length_errors, logits_in_buckets, token_ids

if TYPE_CHECKING:
    import torch

STUDENT_FILE = "student.json"
WEIGHTS = "model.safetensors"


def build_student(encoder: torch.nn.Module, hidden_size: int, findings: int) -> torch.nn.Module:
    """Encoder and heads as one module.

    Its forward takes ``input_ids [b, t]``, ``attention_mask [b, t]`` and maybe ``labels [b, findings]``
    (a Certainty, or -100 for a cell that is not learnt), and returns ``{"logits": [b, findings, 4]}`` with
    the mean cross-entropy over the learnt cells as ``"loss"`` where labels are given.
    """
    import torch

    class Student(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.dropout = torch.nn.Dropout(0.1)
            self.heads = torch.nn.Linear(hidden_size, findings * len(Certainty))

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
        ) -> dict[str, torch.Tensor]:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            logits = self.heads(self.dropout(states[:, 0])).view(len(input_ids), findings, len(Certainty))
            if labels is None:
                return {"logits": logits}
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
            return {"loss": loss, "logits": logits}

    return Student()


def context_length(config: Any, tokenizer: Any) -> int:
    """How many tokens the encoder takes, special tokens included."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    # RoBERTa's kind counts positions from the padding id on: two of them are never used.
    if config.model_type in ("roberta", "camembert", "xlm-roberta"):
        positions -= int(config.pad_token_id or 0) + 1
    return min(positions, int(tokenizer.model_max_length))


def save_student(student: torch.nn.Module, tokenizer: Any, findings: FindingSet, max_length: int, folder: Path) -> None:
    """Write a student's folder; ``student.json`` comes last, so that a folder with it is complete."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    student.encoder.config.save_pretrained(folder)  # type: ignore[union-attr,operator]
    tokenizer.save_pretrained(folder)
    save_file({k: v.detach().cpu().contiguous() for k, v in student.state_dict().items()}, folder / WEIGHTS)
    meta = {"name": findings.name, "findings": list(findings.names), "max_length": max_length}
    (folder / STUDENT_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


class StudentLabeler:
    """Labels with a student's folder. Build it with :meth:`load`."""

    name = "student"

    def __init__(
        self,
        student: torch.nn.Module,
        tokenizer: Any,
        trained: FindingSet,
        findings: FindingSet,
        max_length: int,
        batch_size: int,
        digest: str,
    ) -> None:
        self._device = device()
        self._student, self._tokenizer = student.eval().to(self._device), tokenizer
        self.findings, self._trained = findings, trained
        self._columns = [trained.index(name) for name in findings.names]
        self.max_length, self.batch_size, self.digest = max_length, batch_size, digest

    @classmethod
    def load(cls, folder: Path, *, findings: FindingSet | None = None, batch_size: int = 16) -> StudentLabeler:
        """Load what ``litechex distill`` wrote.

        Args:
            findings: None takes those that the student learnt; others must be among them.

        Raises:
            UserError: if the folder is no student, or a finding was not learnt.
        """
        if not (folder / STUDENT_FILE).is_file():
            raise UserError(f"{folder}: no {STUDENT_FILE} in it; --model takes a folder that litechex distill wrote")
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        try:
            meta = json.loads((folder / STUDENT_FILE).read_text(encoding="utf-8"))
            trained = FindingSet(meta["name"], tuple(meta["findings"]))
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            student = build_student(AutoModel.from_config(config), config.hidden_size, len(trained))
            student.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"{folder}: a file of this student is missing or damaged; distill it again") from error
        missing = [name for name in (findings.names if findings else ()) if name not in trained.names]
        if missing:
            raise UserError(f'--findings: this student never learnt "{missing[0]}"; leave --findings out')
        digest = file_digest(folder / WEIGHTS)
        return cls(student, tokenizer, trained, findings or trained, int(meta["max_length"]), batch_size, digest)

    def label(self, reports: Sequence[str]) -> LabelBatch:
        ids = token_ids(self._tokenizer, reports)
        errors = length_errors(ids, self.max_length)
        kept = [i for i in range(len(ids)) if errors is None or errors[i] is None]
        shape = (len(self._trained), len(Certainty))
        logits = np.zeros((len(ids), *shape), dtype=np.float32)
        logits[kept] = logits_in_buckets(
            [ids[i] for i in kept],
            self._forward,
            shape,
            pad_id=self._tokenizer.pad_token_id or 0,
            batch_size=self.batch_size,
        )
        return label_batch(logits[:, self._columns], self.findings, errors, constrained=True)

    def fingerprint(self) -> str:
        return f"student sha256:{self.digest}"

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._student(ids.to(self._device), mask.to(self._device))["logits"]
