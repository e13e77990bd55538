"""Train a student on a teacher's labels of reports: files of both in, a student's folder out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from lite_chex.data.labels import id_column_beside, read_labels, unlabelled_rows
from lite_chex.data.readers import id_column_of, iter_reports
from lite_chex.errors import UserError
from lite_chex.evaluate.evaluation import score
from lite_chex.findings import SKIP, Certainty, FindingSet
from lite_chex.labelers.committed import file_digest
from lite_chex.labelers.encoder import label_batch, token_ids
from lite_chex.labelers.llm import ADAPTER_CONFIG
from lite_chex.labelers.progress import RunProgress
from lite_chex.labelers.student import STUDENT_FILE, build_student, context_length, save_student
from lite_chex.recipe import NEW_ENCODER
from lite_chex.train.run import complete_checkpoints

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from lite_chex.recipe import DistillSection

IGNORED = -100
"""PyTorch's mark of a cell that is not learnt."""

METRICS = ("macro_f1", "agreement", "mentioned")
CHECKPOINTS = "checkpoints"
JOB_FILE = "distill.json"


@dataclass(frozen=True)
class TaughtFile:
    """A file of reports, and the file of a teacher's labels of them. id_column: of both."""

    reports: Path
    labels: Path
    text_column: str | None = None
    id_column: str | None = None


@dataclass(frozen=True)
class DistillSummary:
    """train / validation: reports of each part. skipped: reports without labels, empty or too long.

    Of the student against its teacher, on the validation part: macro F1; agreement: the share of cells on
    which both say the same; mentioned: the same over the cells that the teacher calls positive, negative or
    uncertain.
    """

    train: int
    validation: int
    skipped: int
    macro_f1: float
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
    files: Sequence[TaughtFile],
    section: DistillSection,
    findings: FindingSet,
    output: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    console: Console | None = None,
) -> DistillSummary:
    """Train an encoder on the labels of ``files`` and write the student of the best epoch to ``output``.

    Best is the epoch with the highest macro F1 against the teacher on the validation part, which is chosen by
    the report's text: a text that stands twice is never on both sides. Only safetensors weights are loaded,
    and no code of the model's own.

    Raises:
        UserError: if the base is not found or is no encoder, no report has labels, or ``output`` holds
            something else than an unfinished run of the same files and options to go on with.
    """
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from lite_chex.model.backbone import quiet_libraries
    from lite_chex.train.batches import LengthGrouped

    quiet_libraries()
    console = console or Console()
    checkpoint = _prepare(output, _job(files, section, findings, seed), resume)
    torch.manual_seed(seed)  # before anything is drawn
    encoder, tokenizer = _base(section.model_name_or_path, output / CHECKPOINTS, files)
    max_length = min(section.max_length or 512, context_length(encoder.config, tokenizer))
    corpus = _read_corpus(files, findings, tokenizer, max_length, section.validation_fraction)
    student = build_student(encoder, encoder.config.hidden_size, len(findings))
    parts = [_Part(corpus, np.flatnonzero(corpus.held_out == side)) for side in (False, True)]
    console.print(
        f"distill: {len(parts[0]):,} reports to learn from, {len(parts[1]):,} held out, {corpus.skipped:,} left out",
        highlight=False,
    )
    arguments = TrainingArguments(
        output_dir=str(output / CHECKPOINTS),
        num_train_epochs=section.num_train_epochs,
        learning_rate=section.learning_rate,
        per_device_train_batch_size=section.per_device_train_batch_size,
        per_device_eval_batch_size=section.per_device_train_batch_size,
        warmup_steps=section.warmup_ratio,
        weight_decay=section.weight_decay,
        lr_scheduler_type="linear",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        label_names=["labels"],
        remove_unused_columns=False,
        report_to=[],
        seed=seed,
        logging_strategy="no",
        disable_tqdm=True,  # RunProgress shows how far it is
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )

    class StudentTrainer(Trainer):
        def _get_train_sampler(self, *_: Any) -> LengthGrouped:
            return LengthGrouped([len(corpus.ids[row]) for row in parts[0].rows], self.args, seed)

    trainer = StudentTrainer(
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
    _write_metrics(output, trainer.state.log_history)
    figures = trainer.evaluate()
    save_student(student, tokenizer, findings, max_length, output)
    shutil.rmtree(output / CHECKPOINTS)  # optimizer states, several times the student's size
    return DistillSummary(len(parts[0]), len(parts[1]), corpus.skipped, *(figures[f"eval_{name}"] for name in METRICS))


def _job(files: Sequence[TaughtFile], section: DistillSection, findings: FindingSet, seed: int) -> dict[str, object]:
    """What a resumed run must have in common with the one that it goes on with."""
    for path in (p for file in files for p in (file.reports, file.labels)):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    digests = [[file_digest(f.reports), file_digest(f.labels), f.text_column, f.id_column] for f in files]
    options = section.model_dump(mode="json", exclude={"teacher", "reports"})
    return {"files": digests, "findings": list(findings.names), "seed": seed, **options}


def _prepare(output: Path, job: dict[str, object], resume: bool) -> str | None:
    """Make the folder, or find the checkpoint to go on from (None: from the start)."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file of that name is there; name a folder")
    if (output / STUDENT_FILE).exists():
        raise UserError(f"{output}: holds a finished student; name another folder")
    if (output / ADAPTER_CONFIG).exists():  # its tokenizer would be overwritten
        raise UserError(f"{output}: holds an adapter; name another folder")
    found = complete_checkpoints(output / CHECKPOINTS)
    if found and not resume:
        raise UserError(f"{output}: holds an unfinished run; --resume goes on with it, another folder keeps both")
    if found and json.loads((output / JOB_FILE).read_text(encoding="utf-8")) != job:
        raise UserError(f"{output}: the files or options of the unfinished run were others; name another folder")
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
                console.print(
                    f"epoch {state.epoch:.3g}: macro F1 {metrics['eval_macro_f1']:.3f} against the teacher, "
                    f"{metrics['eval_agreement']:.1%} of all cells alike",
                    highlight=False,
                )

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.finished = True
            self.bar.__exit__(None, None, None)

    return Show()


def _base(name: str, folder: Path, files: Sequence[TaughtFile]) -> tuple[Any, Any]:
    """Encoder and tokenizer; a new encoder is made once and kept with the checkpoints, for a resumed run."""
    if name != NEW_ENCODER:
        return _load_base(name)
    made = folder / NEW_ENCODER
    if not (made / "config.json").is_file():
        from lite_chex.train.new_encoder import make_encoder

        texts = (r.text for f in files for r in iter_reports(f.reports, f.text_column, f.id_column))
        make_encoder(texts, made)
    return _load_base(str(made))


def check_student_base(name: str) -> None:
    """Raise a UserError where :func:`distill` would find no encoder under that name."""
    if name != NEW_ENCODER:
        _load_base(name)


def _load_base(base: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    local = Path(base).is_dir()  # then no hub is asked for anything
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=local)
        # fp32: a student this small is trained whole, and bf16 weights would round its updates away.
        encoder = AutoModel.from_pretrained(base, local_files_only=local, use_safetensors=True, dtype="float32")
    except (OSError, ValueError) as error:
        raise UserError(
            f'distill.model_name_or_path (--base): no encoder with safetensors weights was found under "{base}"; give '
            f'the folder of one, a hub name that this machine can reach, or "{NEW_ENCODER}" for a small untrained one'
        ) from error
    if getattr(encoder.config, "is_encoder_decoder", False) or not hasattr(encoder.config, "hidden_size"):
        raise UserError(f'distill.model_name_or_path (--base): "{base}" is no BERT-like encoder')
    return encoder, tokenizer


def _read_corpus(
    files: Sequence[TaughtFile], findings: FindingSet, tokenizer: Any, max_length: int, validation: float
) -> _Corpus:
    ids: list[np.ndarray] = []
    picked: list[np.ndarray] = []
    held_out: list[bool] = []
    skipped = 0
    for file in files:
        id_column = id_column_beside(file.labels, id_column_of(file.reports, file.id_column))
        table = read_labels(file.labels, findings, id_column)
        targets = table.values.astype(np.int64)
        targets[:, ~table.columns] = IGNORED  # a finding without a column is unknown here, not absent
        targets[table.values == SKIP] = IGNORED
        failed = unlabelled_rows(file.labels, table)  # their labels are empty because there was no answer
        rows = {study_id: i for i, study_id in enumerate(table.ids) if i not in failed}
        before = len(ids)
        for report in iter_reports(file.reports, file.text_column, file.id_column):
            row = rows.get(report.study_id)
            tokens = token_ids(tokenizer, [report.text])[0] if row is not None and report.text.strip() else []
            if row is None or not tokens or len(tokens) > max_length:
                skipped += 1
                continue
            ids.append(np.array(tokens, dtype=np.int32))
            picked.append(targets[row])
            held_out.append(_share(report.text) < validation)
        if len(ids) == before:
            raise UserError(
                f"{file.labels}: 0 of its ids have a report in {file.reports} that can be learnt from; "
                "both files must share ids"
            )
    if all(held_out) or not any(held_out):
        raise UserError(f"{files[0].reports}: {len(ids)} reports are too few for a validation part; give more")
    return _Corpus(ids, np.stack(picked), np.array(held_out), skipped)


def _write_metrics(output: Path, history: Sequence[dict[str, float]]) -> None:
    """``metrics.jsonl``: one row per validation."""
    rows = [{"step": h["step"], **{k: round(h[f"eval_{k}"], 6) for k in METRICS}} for h in history if "eval_loss" in h]
    (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


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
        return {"input_ids": ids, "labels": self.corpus.labels[row]}


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
    """:data:`METRICS` of the student's logits ``[n, F, 4]`` against the teacher's labels ``[n, F]``."""
    values = label_batch(logits, findings, None, constrained=True).values
    right, known = values == labels, labels != IGNORED
    mentioned = known & (labels != Certainty.ABSENT)
    taught = np.where(known, labels, SKIP).astype(np.int8)
    return {
        "macro_f1": score(taught, values, findings).macro_f1 or 0.0,
        "agreement": float(right[known].mean()) if known.any() else 0.0,
        "mentioned": float(right[mentioned].mean()) if mentioned.any() else 0.0,
    }
