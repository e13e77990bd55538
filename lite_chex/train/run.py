"""A run's folder, its log and its model card; what every training stage shares."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lite_chex.data.files import atomic_path
from lite_chex.data.splits import text_digest
from lite_chex.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.recipe import Recipe

STAGES = ("sft", "sft_gold", "reward", "ppo", "dpo")
FINISHED = "finished.json"
PAIRS_FILE = "preferences.jsonl"
MADE_FROM = "made_from.json"
TRAINED_ON = "trained_on.txt"
"""Digests of all report texts that a stage's adapter has seen, in the stages before it and before ``sft.start_from``
too: ``eval`` says where test reports are among them, and a later SFT holds none of them out. Whoever has a text can
tell whether it was among them."""


@dataclass
class Stage:
    """One stage's folder: ``runs/<name>/<stage>/`` with adapter, metrics and checkpoints."""

    recipe: Recipe
    name: str

    @property
    def dir(self) -> Path:
        return self.recipe.run_dir / self.name

    @property
    def checkpoints(self) -> Path:
        return self.dir / "checkpoints"

    @property
    def adapter_config(self) -> Path:
        return self.dir / "adapter_config.json"

    @property
    def finished(self) -> bool:
        return (self.dir / FINISHED).is_file() and self.adapter_config.is_file()

    def begin(self, resume: bool, made_from: Mapping[str, str] | None = None) -> None:
        """Make the folder; without ``resume`` what an earlier run of this stage left is removed first.

        made_from: fingerprints of the parts that this stage is made from, kept beside it.

        Raises:
            UserError: if the run folder belongs to another recipe, or was begun from other parts, and ``resume``
                would mix them.
        """
        resumed = resume and self.dir.is_dir()
        if resumed:
            self._check_same_recipe()
            self._check_same_parts(made_from or {})
        elif self.dir.is_dir():
            shutil.rmtree(self.dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.recipe.run_dir / "recipe.yaml") as temporary:
            temporary.write_text(self.recipe.to_yaml(), encoding="utf-8")
        with atomic_path(self.dir / "recipe.yaml") as temporary:
            temporary.write_text(self.recipe.to_yaml(), encoding="utf-8")
        if made_from and not (resumed and self.checkpoints.is_dir()):
            with atomic_path(self.dir / MADE_FROM) as temporary:
                temporary.write_text(json.dumps(made_from), encoding="utf-8")

    def complete(self, resume: bool, made_from: Mapping[str, str], console: Console) -> bool:
        """Whether ``resume`` finds the stage finished, from the same recipe and parts; says so.

        Raises:
            UserError: as :meth:`begin`.
        """
        if not resume or not self.finished:
            return False
        self._check_same_recipe()
        self._check_same_parts(made_from)
        console.print(f"{self.dir}: finished before; without --resume it is trained again", highlight=False)
        return True

    def _check_same_recipe(self) -> None:
        import yaml

        path = self.dir / "recipe.yaml"
        if not path.is_file():
            return
        before, now = yaml.safe_load(path.read_text(encoding="utf-8")), self.recipe.model_dump(mode="json")
        own = {"sft_gold": ("sft",), "reward": ("reward", "preferences"), "dpo": ("dpo", "preferences")}
        sections = ("model", "data", "seed", *own.get(self.name, (self.name,)))
        changed = [s for s in sections if before.get(s) != now.get(s)]
        if changed:
            raise UserError(
                f"{self.dir}: the recipe's section {', '.join(changed)} changed since this stage was started; "
                "run without --resume to start it again"
            )

    def _check_same_parts(self, now: Mapping[str, str]) -> None:
        path = self.dir / MADE_FROM
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
        if changed:
            were = "was" if len(changed) == 1 else "were"
            raise UserError(
                f"{self.dir}: {' and '.join(changed)} {were} made again since this stage was started; "
                "run without --resume to start it again"
            )

    def require(self, why: str) -> Path:
        """This stage's folder, finished.

        Raises:
            UserError: if the run does not have it.
        """
        if not self.finished:
            command = {"sft": "train-sft", "reward": "train-rm", "ppo": "train-ppo", "dpo": "train-dpo"}
            raise UserError(
                f"{self.dir}: the run has no finished {self.name} stage, which {why} needs; "
                f"run litechex {command.get(self.name, self.name)} first"
            )
        return self.dir

    def finish(self, summary: Mapping[str, Any]) -> None:
        with atomic_path(self.dir / FINISHED) as temporary:
            temporary.write_text(json.dumps(summary, indent=1), encoding="utf-8")
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def complete_checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints of a transformers trainer by step. Its state file is written last: where that is missing or
    unreadable, the run was killed while it saved."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        try:
            step = int(json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
        except (OSError, ValueError, KeyError):
            continue
        found[step] = path
    return found


def rounded(value: float) -> float:
    """A figure as ``metrics.jsonl`` has it."""
    return round(value, 6)


@dataclass
class MetricsLog:
    """``metrics.jsonl`` and TensorBoard events of a stage; resuming drops what lies past the checkpoint."""

    folder: Path
    resumed_at: int | None = None
    _writer: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = self.folder / "metrics.jsonl"
        if self.resumed_at is not None and path.is_file():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= self.resumed_at]
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.resumed_at)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        clean = {k: (rounded(float(v)) if v is not None else None) for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        for key, value in clean.items():
            if value is not None:
                self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._file.close()
        self._writer.close()


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 60  # a torn line goes


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


@dataclass
class Clock:
    started: float = field(default_factory=time.time)

    @property
    def seconds(self) -> float:
        return time.time() - self.started


def write_card(stage: Stage, title: str, facts: Mapping[str, Any], library: str = "peft") -> None:
    """The stage's model card: data, numbers, hardware, and what the model is not.

    facts: further rows; "base model" among them replaces the recipe's.
    """
    from lite_chex import __version__
    from lite_chex.model.hardware import machine, peak_memory_gb

    recipe = stage.recipe
    rows = {
        "base model": recipe.model.model_name_or_path,
        "recipe": recipe.name,
        "findings": ", ".join(recipe.findings.names),
        "seed": recipe.seed,
        **facts,
        "peak memory": f"{peak_memory_gb():.2f} GiB",
        "machine": ", ".join(f"{k} {v}" for k, v in machine().items()),
        "lite-chex": __version__,
    }
    table = "\n".join(f"| {k} | {v} |" for k, v in rows.items())
    text = (
        f"---\nlibrary_name: {library}\nbase_model: {rows['base model']}\n---\n# {title}\n\n"
        "Labels chest X-ray reports with one certainty per finding. **A research tool, not a medical device**; "
        "made by LiteChex.\n\n| | |\n|---|---|\n" + table + "\n"
    )
    (stage.dir / "README.md").write_text(text, encoding="utf-8")


def seed_everything(seed: int) -> None:
    from transformers import set_seed

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_seed(seed)


def record_texts(stage: Stage, texts: Iterable[str], *before: Path) -> None:
    """Keep which reports a stage is trained on, with those of the adapters ``before`` it."""
    seen = {text_digest(text) for text in texts}.union(*map(trained_on, before))
    with atomic_path(stage.dir / TRAINED_ON) as temporary:
        temporary.write_text("".join(f"{digest}\n" for digest in sorted(seen)), encoding="utf-8")


def trained_on(adapter: Path) -> set[str]:
    """Digests of the reports that an adapter has seen; none where its folder does not say."""
    path = adapter / TRAINED_ON
    return set(path.read_text(encoding="utf-8").split()) if path.is_file() else set()
