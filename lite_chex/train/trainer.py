"""What SFT, reward and DPO share: TRL's arguments, one callback, checkpoints that survive ``kill -9``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lite_chex.model.adapters import save_adapter, tensors_kept
from lite_chex.model.hardware import return_freed_memory
from lite_chex.train.progress import Steps, steps
from lite_chex.train.run import MetricsLog, Stage, complete_checkpoints, read_metrics, rounded

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import Trainer

    from lite_chex.model.backbone import Backbone
    from lite_chex.recipe import Trained


STEPS_BETWEEN_RETURNS = 8
"""Optimiser steps after which freed memory goes back to the system."""


def training_arguments(cls: Any, section: Trained, stage: Stage, dtype: str, **more: Any) -> Any:
    """TRL's config object for a recipe section."""
    import torch

    cuda = torch.cuda.is_available()
    arguments = cls(
        output_dir=str(stage.checkpoints),
        learning_rate=section.learning_rate,
        num_train_epochs=section.num_train_epochs,
        max_steps=section.max_steps,
        per_device_train_batch_size=section.per_device_train_batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        gradient_checkpointing=section.gradient_checkpointing,
        warmup_steps=section.warmup_ratio,
        lr_scheduler_type=section.lr_scheduler_type,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        optim=section.optim,
        logging_steps=section.logging_steps,
        save_strategy="steps",
        save_steps=section.save_steps,
        save_total_limit=2,
        eval_strategy="no",
        seed=stage.recipe.seed,
        data_seed=stage.recipe.seed,
        # Adapters stay fp32 and the base computes in its own dtype: autocast only where fp16 needs its scaler.
        bf16=False,
        fp16=dtype == "float16" and cuda,
        use_cpu=not cuda,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        report_to=[],
        disable_tqdm=True,
        push_to_hub=False,
        **more,
    )
    # transformers multiplies the batch by the visible cards, and would split it among them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def make_trainer(cls: Any, backbone: Backbone, arguments: Any, rows: list[dict[str, Any]], collator: Any) -> Any:
    """A TRL trainer over rows in memory; its constructor leaves the adapter's values as they are."""
    from datasets import Dataset

    with tensors_kept(backbone.model):
        return cls(
            model=backbone.model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            data_collator=collator,
            processing_class=backbone.tokenizer,
        )


@dataclass
class Selection:
    """Which validation figure chooses the checkpoint, and when to stop."""

    metric: str
    higher_is_better: bool
    patience: int

    def better(self, value: float, than: float | None) -> bool:
        return than is None or (value > than if self.higher_is_better else value < than)


@dataclass
class BestSoFar:
    """The best validation so far and how many came after it; derived from ``metrics.jsonl`` on resume."""

    selection: Selection
    value: float | None = None
    step: int = -1
    since: int = 0

    def update(self, step: int, value: float) -> bool:
        value = rounded(value)  # as the log has it, from which a resumed run knows the best
        if self.selection.better(value, self.value):
            self.value, self.step, self.since = value, step, 0
            return True
        self.since += 1
        return False

    @property
    def exhausted(self) -> bool:
        return self.since >= self.selection.patience

    @classmethod
    def from_metrics(cls, selection: Selection, folder: Path) -> BestSoFar:
        best = cls(selection)
        for row in read_metrics(folder):
            value = row.get(f"validation/{selection.metric}")
            if value is not None:
                best.update(int(row["step"]), float(value))
        return best


@dataclass
class StageCallback(TrainerCallback):
    """Progress, metrics, validation, the best adapter so far, early stopping."""

    stage: Stage
    log: MetricsLog
    bar: Steps
    selection: Selection
    measure: Callable[[], dict[str, float]]
    save: Callable[[Path], None]
    eval_steps: int
    best: BestSoFar
    stopped: str = ""
    _note: dict[str, float] = field(default_factory=dict)

    @property
    def best_dir(self) -> Path:
        return self.stage.checkpoints / "best"

    @property
    def why_stopped(self) -> str:
        return f"no better {self.selection.metric} in {self.selection.patience} validations"

    def validate(self, step: int) -> None:
        found = self.measure()
        self.log.log(step, {f"validation/{k}": v for k, v in found.items()})
        value = found[self.selection.metric]
        if self.best.update(step, value):
            self.best_dir.mkdir(parents=True, exist_ok=True)
            self.save(self.best_dir)
        shown = ", ".join(
            f"{k} {v:.3f}" for k, v in found.items() if k in ("macro_f1", "errors_per_report", "accuracy")
        )
        mark = " (best)" if self.best.step == step else ""
        self.bar.say(f"  step {step}: validation {shown}{mark}")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.total = state.max_steps
        if self.bar.bar is not None and self.bar.task is not None:
            self.bar.bar.update(self.bar.task, total=state.max_steps, completed=state.global_step)
        self.bar.done = self.bar.at_start = state.global_step

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        numbers = {k: v for k, v in (logs or {}).items() if isinstance(v, (int, float)) and not k.startswith("train_")}
        if numbers:
            self._note = numbers
            self.log.log(state.global_step, numbers)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        note = f"loss {self._note['loss']:.3f}" if "loss" in self._note else ""
        self.bar.advance(note, to=state.global_step)
        if state.global_step % STEPS_BETWEEN_RETURNS == 0:
            return_freed_memory()
        last = state.global_step >= state.max_steps
        if state.global_step % self.eval_steps == 0 or last:
            self.validate(state.global_step)
            if self.best.exhausted and not last:
                self.stopped = self.why_stopped
                control.should_training_stop = True


def run_trainer(
    trainer: Trainer,
    stage: Stage,
    *,
    title: str,
    console: Console,
    resume: bool,
    selection: Selection,
    measure: Callable[[], dict[str, float]],
    eval_steps: int,
    measure_first: bool,
    save: Callable[[Path], None] | None = None,
) -> StageCallback:
    """Train with validation and resume, then put the best adapter at the stage's root."""
    found = complete_checkpoints(stage.checkpoints) if resume else {}
    step = max(found, default=None)
    checkpoint = None if step is None else found[step]
    log = MetricsLog(stage.dir, resumed_at=step if resume else None) if step is not None else _fresh_log(stage)
    from transformers import PrinterCallback, ProgressCallback

    for unwanted in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(unwanted)
    with steps(console, title, total=1) as bar:
        callback = StageCallback(
            stage,
            log,
            bar,
            selection,
            measure,
            save or (lambda folder: save_adapter(trainer.model, folder)),
            eval_steps,
            BestSoFar.from_metrics(selection, stage.dir),
        )
        if measure_first and checkpoint is None:
            callback.validate(0)
        trainer.add_callback(callback)
        if checkpoint is not None:
            bar.say(f"  resuming from step {step}")
        if callback.best.exhausted:  # killed right behind the validation that stopped it
            callback.stopped = callback.why_stopped
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    log.close()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(callback.best_dir / name, stage.dir / name)  # what follows may be killed, and resumed
    return callback


def _fresh_log(stage: Stage) -> MetricsLog:
    (stage.dir / "metrics.jsonl").unlink(missing_ok=True)
    return MetricsLog(stage.dir)
