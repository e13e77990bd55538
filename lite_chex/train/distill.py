"""Train a student on a teacher's labels of a corpus: reports and a label CSV in, a student's folder out."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from lite_chex.data.labels import read_labels
from lite_chex.data.readers import iter_reports
from lite_chex.errors import UserError
from lite_chex.findings import SKIP, Certainty, FindingSet
from lite_chex.labelers.committed import file_digest
from lite_chex.labelers.encoder import label_batch, token_ids
from lite_chex.labelers.progress import RunProgress
from lite_chex.labelers.student import STUDENT_FILE, build_student, context_length, save_student

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

IGNORED = -100
"""PyTorch's mark of a cell that is not learnt."""

CHECKPOINTS = "checkpoints"
JOB_FILE = "distill.json"


@dataclass(frozen=True)
class DistillOptions:
    """Training options, under transformers' names."""

    num_train_epochs: float = 3.0
    learning_rate: float = 5e-5
    per_device_train_batch_size: int = 16
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    max_length: int | None = None
    validation: float = 0.05
    seed: int = 0
    resume: bool = False


@dataclass(frozen=True)
class DistillSummary:
    """train / validation: reports of each part. skipped: reports without labels, empty or too long.

    agreement: the share of validation cells on which the student says what the teacher says.
    mentioned: the same over the cells that the teacher calls positive, negative or uncertain.
    """

    train: int
    validation: int
    skipped: int
    agreement: float
    mentioned: float


@dataclass
class _Corpus:
    """Token ids and labels; a list of int32 arrays holds a million reports in under a gigabyte."""

    ids: list[np.ndarray]
    labels: np.ndarray
    held_out: np.ndarray
    skipped: int


def distill(
    reports: Path,
    labels: Path,
    base: str,
    output: Path,
    findings: FindingSet,
    options: DistillOptions,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    console: Console | None = None,
) -> DistillSummary:
    """Train encoder ``base`` on ``labels`` of ``reports`` and write the student of the best epoch to ``output``.

    The validation part is chosen by the report's text, so that a text that stands twice is never on both
    sides. Only safetensors weights are loaded, and no code of the model's own.

    Raises:
        UserError: if the base is not found or is no encoder, no report has labels, or ``output`` holds
            something else than an unfinished run of the same files and options to go on with.
    """
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    console = console or Console()
    checkpoint = _prepare(output, _job(reports, labels, base, findings, options), options.resume)
    torch.manual_seed(options.seed)  # before the heads are drawn
    encoder, tokenizer = _load_base(base)
    max_length = min(options.max_length or 512, context_length(encoder.config, tokenizer))
    corpus = _read_corpus(reports, labels, findings, tokenizer, max_length, options.validation, text_column, id_column)
    student = build_student(encoder, encoder.config.hidden_size, len(findings))
    parts = [_Part(corpus, np.flatnonzero(corpus.held_out == side)) for side in (False, True)]
    console.print(
        f"distill: {len(parts[0]):,} reports to learn from, {len(parts[1]):,} held out, {corpus.skipped:,} left out",
        highlight=False,
    )
    arguments = TrainingArguments(
        output_dir=str(output / CHECKPOINTS),
        num_train_epochs=options.num_train_epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.per_device_train_batch_size,
        per_device_eval_batch_size=options.per_device_train_batch_size,
        warmup_steps=options.warmup_ratio,
        weight_decay=options.weight_decay,
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="mentioned",
        greater_is_better=True,
        label_names=["labels"],
        remove_unused_columns=False,
        report_to=[],
        seed=options.seed,
        logging_strategy="no",
        disable_tqdm=True,  # RunProgress shows how far it is
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=student,
        args=arguments,
        train_dataset=parts[0],
        eval_dataset=parts[1],
        data_collator=_Collator(tokenizer.pad_token_id or 0),
        compute_metrics=lambda p: _agreement(np.asarray(p.predictions), np.asarray(p.label_ids), findings),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_show(console))
    trainer.train(resume_from_checkpoint=checkpoint)
    figures = trainer.evaluate()
    save_student(student, tokenizer, findings, max_length, output)
    shutil.rmtree(output / CHECKPOINTS)  # optimizer states, several times the student's size
    return DistillSummary(
        len(parts[0]), len(parts[1]), corpus.skipped, figures["eval_agreement"], figures["eval_mentioned"]
    )


def _job(reports: Path, labels: Path, base: str, findings: FindingSet, options: DistillOptions) -> dict[str, object]:
    """What a resumed run must have in common with the one that it goes on with."""
    for path in (reports, labels):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    job: dict[str, object] = {"reports": file_digest(reports), "labels": file_digest(labels), "base": base}
    job.update(asdict(options), findings=list(findings.names))
    del job["resume"]
    return job


def _prepare(output: Path, job: dict[str, object], resume: bool) -> str | None:
    """Make the folder, or find the checkpoint to go on from (None: from the start)."""
    if (output / STUDENT_FILE).exists():
        raise UserError(f"{output}: holds a finished student; choose another --output")
    # trainer_state.json is written last: a folder without it is what a killed run left.
    found = {int(f.parent.name.split("-")[1]): f.parent for f in (output / CHECKPOINTS).glob("*-*/trainer_state.json")}
    if found and not resume:
        raise UserError(f"{output}: holds an unfinished run; --resume goes on with it, another --output keeps both")
    if found and json.loads((output / JOB_FILE).read_text(encoding="utf-8")) != job:
        raise UserError(f"{output}: the files or options of the unfinished run were others; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    (output / JOB_FILE).write_text(json.dumps(job, indent=1) + "\n", encoding="utf-8")
    for folder in (output / CHECKPOINTS).glob("checkpoint-*"):
        if folder not in found.values():
            shutil.rmtree(folder)
    return str(found[max(found)]) if found else None


def _show(console: Console) -> TrainerCallback:
    """A progress bar over the steps, and one line after each epoch."""
    from transformers import TrainerCallback

    class Show(TrainerCallback):
        finished = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar = RunProgress(console, state.max_steps, start=state.global_step, what="distill", unit="steps")
            self.bar.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.advance(1)

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            metrics = kwargs["metrics"]
            if not self.finished:  # not the last one, which only repeats the best epoch
                share = f"agreement {metrics['eval_agreement']:.1%}, where mentioned {metrics['eval_mentioned']:.1%}"
                console.print(f"epoch {state.epoch:.3g}: held-out {share}", highlight=False)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.finished = True
            self.bar.__exit__(None, None, None)

    return Show()


def _load_base(base: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    local = Path(base).is_dir()  # then no hub is asked for anything
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=local)
        # fp32: a student this small is trained whole, and bf16 weights would round its updates away.
        encoder = AutoModel.from_pretrained(base, local_files_only=local, use_safetensors=True, dtype="float32")
    except (OSError, ValueError) as error:
        raise UserError(
            f'--base: no encoder with safetensors weights was found under "{base}"; '
            "give the folder of one, or a hub name that this machine can reach"
        ) from error
    if getattr(encoder.config, "is_encoder_decoder", False) or not hasattr(encoder.config, "hidden_size"):
        raise UserError(f'--base: "{base}" is no BERT-like encoder')
    return encoder, tokenizer


def _read_corpus(
    reports: Path,
    labels: Path,
    findings: FindingSet,
    tokenizer: Any,
    max_length: int,
    validation: float,
    text_column: str | None,
    id_column: str | None,
) -> _Corpus:
    table = read_labels(labels, findings)
    rows = {study_id: i for i, study_id in enumerate(table.ids)}
    targets = table.values.astype(np.int64)
    targets[:, ~table.columns] = IGNORED  # a finding without a column is unknown here, not absent
    targets[table.values == SKIP] = IGNORED
    ids: list[np.ndarray] = []
    picked: list[int] = []
    held_out: list[bool] = []
    skipped = 0
    for report in iter_reports(reports, text_column, id_column):
        row = rows.get(report.study_id)
        tokens = token_ids(tokenizer, [report.text])[0] if row is not None and report.text.strip() else []
        if row is None or not tokens or len(tokens) > max_length:
            skipped += 1
            continue
        ids.append(np.array(tokens, dtype=np.int32))
        picked.append(row)
        held_out.append(_share(report.text) < validation)
    if not ids or all(held_out) or not any(held_out):
        raise UserError(
            f"{labels}: {len(ids)} of its ids have a report in {reports} that can be learnt from; "
            "both files must share ids, and hold enough reports for a validation part"
        )
    return _Corpus(ids, targets[picked], np.array(held_out), skipped)


def _share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: the same split on every machine and in every order."""
    return int.from_bytes(hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).digest()[:8], "big") / 2**64


class _Part:
    """One side of the split, as the Trainer's dataset."""

    def __init__(self, corpus: _Corpus, rows: np.ndarray) -> None:
        self.corpus, self.rows = corpus, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self.rows[i]
        ids = self.corpus.ids[row]
        return {"input_ids": ids, "labels": self.corpus.labels[row], "length": len(ids)}


@dataclass
class _Collator:
    pad_id: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        width = max(len(e["input_ids"]) for e in examples)
        ids = torch.full((len(examples), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            n = len(example["input_ids"])
            ids[row, :n] = torch.from_numpy(example["input_ids"].astype(np.int64))
            mask[row, :n] = 1
        labels = torch.from_numpy(np.stack([e["labels"] for e in examples]))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _agreement(logits: np.ndarray, labels: np.ndarray, findings: FindingSet) -> dict[str, float]:
    values = label_batch(logits, findings, None, constrained=True).values
    right, known = values == labels, labels != IGNORED
    mentioned = known & (labels != Certainty.ABSENT)
    return {
        "agreement": float(right[known].mean()) if known.any() else 0.0,
        "mentioned": float(right[mentioned].mean()) if mentioned.any() else 0.0,
    }
