"""Closing the loop: experts compare two answers to new reports; reward model and PPO are trained again.

A round is a folder ``<run>/loop-N`` that is itself a run: it takes the SFT adapter over and has preferences,
reward model and PPO of its own, so nothing of an earlier round changes and every other command takes it. What
a round still needs is read off its files: the same call goes on wherever it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lite_chex.annotate.answers import two_answers
from lite_chex.annotate.build import Inputs, build_items
from lite_chex.annotate.export import preferences, write_preferences
from lite_chex.annotate.sampling import sample_reports
from lite_chex.annotate.sources import load_reports
from lite_chex.annotate.store import Store
from lite_chex.data.files import atomic_path
from lite_chex.data.preferences import read_pairs, write_pairs
from lite_chex.data.records import Report
from lite_chex.data.splits import without_shared
from lite_chex.errors import UserError
from lite_chex.train.examples import labelled_reports
from lite_chex.train.lineage import PAIRS, record_pairs, require_fresh
from lite_chex.train.preferences import make_preferences
from lite_chex.train.run import PAIRS_FILE, Stage

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.evaluate.inputs import EvalInput
    from lite_chex.recipe import Recipe

STUDY_FILE = "study.json"
STORE_FILE = "judgements.sqlite"
PEOPLE_FILE = "human_preferences.jsonl"
T = TypeVar("T")
RETRAINED = ("best_of_k", "dpo", "ppo")
"""Stages that a round has of its own; DPO where ``train-dpo`` was run on it."""


@dataclass(frozen=True)
class Study:
    """What a round's experts compare; kept in ``study.json``. digest: of the reports file. count: pairs wanted."""

    reports: str
    digest: str
    count: int
    text_column: str | None = None
    id_column: str | None = None


@dataclass(frozen=True)
class Round:
    """One round. before: the run, or the round before this one, that it starts from; recipe: the round's own."""

    number: int
    before: Recipe
    recipe: Recipe

    @property
    def dir(self) -> Path:
        return self.recipe.run_dir

    @property
    def store(self) -> Path:
        return self.dir / STORE_FILE

    @property
    def answers(self) -> dict[str, Path]:
        return {name: self.dir / "answers" / f"{name}.csv" for name in ("policy", "alternative")}

    @property
    def study(self) -> Study | None:
        path = self.dir / STUDY_FILE
        return Study(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    @property
    def finished(self) -> bool:
        return Stage(self.recipe, "ppo").finished

    def inputs(self, reports: Path | None = None) -> Inputs:
        """The comparison study, as ``litechex annotate compare`` takes it. reports: where the file now is.

        Raises:
            UserError: if the reports file is gone or another one than the study was made from.
        """
        study = self.study
        assert study is not None
        path = reports or Path(study.reports)
        if not path.is_file() or _digest(path) != study.digest:
            raise UserError(
                f"{path}: not the reports that round {self.number} was started with ({study.reports}); give that file, "
                f"finish the round before --next, or remove {self.dir} to start it again"
            )
        predictions = tuple(f"{name}={file}" for name, file in self.answers.items())
        return Inputs(
            path,
            predictions,
            self.recipe.findings,
            study.text_column,
            study.id_column,
            study.count,
            self.recipe.seed,
        )


def open_round(recipe: Recipe, following: bool = False) -> Round:
    """The run's newest round (the first where there is none), or with ``following`` the one after it.

    Raises:
        UserError: if the run has no SFT stage, or ``following`` would leave the newest round unfinished.
    """
    Stage(recipe, "sft").require("the loop")
    newest = max((int(p.parent.name[5:]) for p in recipe.run_dir.glob(f"loop-[0-9]*/{STUDY_FILE}")), default=0)
    if following and newest and not _round(recipe, newest).finished:
        raise UserError(f"{recipe.run_dir}/loop-{newest}: this round is not finished; leave --next out to finish it")
    return _round(recipe, max(newest, 1) + (following and newest > 0))


def _round(recipe: Recipe, number: int) -> Round:
    def of(n: int) -> Recipe:
        own = recipe.model_copy(deep=True)
        if n:
            own.name = f"{recipe.name}/loop-{n}"
            folders = [recipe.run_dir / f"loop-{k}" for k in range(1, n + 1)]
            own.data.preference_pairs += [str(folder / PEOPLE_FILE) for folder in folders]
        return own

    return Round(number, of(number - 1), of(number))


def build_study(
    round_: Round,
    reports_file: Path,
    console: Console,
    *,
    count: int = 20,
    pool: int = 200,
    text_column: str | None = None,
    id_column: str | None = None,
) -> None:
    """Answer ``pool`` of the new reports twice, and keep what is needed to compare the ``count`` most informative.

    Reports that share a patient or a text with the recipe's test or validation, or that an earlier round has
    judged, are left out.

    Raises:
        UserError: if no new report is left, or its two answers are the same on every one.
    """
    reports, _ = load_reports(reports_file, text_column, id_column)
    fresh = _unseen(round_, reports)
    if len(fresh) < len(reports):
        console.print(
            f"{len(reports) - len(fresh)} of {len(reports)} reports left out: judged before, or shared with "
            "test or validation",
            highlight=False,
        )
    if not fresh:
        raise UserError(f"{reports_file}: no report is new; give --reports that no split or earlier round has")
    drawn = sample_reports(fresh, pool, round_.recipe.seed + round_.number)
    found = two_answers(round_.before, drawn, round_.answers, console, round_.recipe.seed + 7000 + round_.number)
    if not found:
        raise UserError(
            f"{reports_file}: the policy and its samples agree on all {len(drawn)} reports; give other reports, "
            "a larger --pool, or a higher preferences.temperature"
        )
    study = Study(str(reports_file), _digest(reports_file), count, text_column, id_column)
    # The study comes last: its file says that the round's other ones are whole.
    for name, text in (("recipe.yaml", round_.recipe.to_yaml()), (STUDY_FILE, json.dumps(asdict(study), indent=1))):
        with atomic_path(round_.dir / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    console.print(
        f"{found} of {len(drawn)} reports have two answers; the {min(count, found)} most informative are compared",
        highlight=False,
    )


def _unseen(round_: Round, reports: list[Report]) -> list[Report]:
    splits: dict[str, list[Report]] = {}
    for split in ("test", "validation"):
        sources = getattr(round_.recipe.data, split)
        splits[split] = [report for source in sources for report in labelled_reports(source, round_.recipe).reports]
    judged: set[str] = set()
    for number in range(1, round_.number):
        with Store(round_.dir.parent / f"loop-{number}" / STORE_FILE, create=False) as store:
            items = store.items("compare")
            judged |= {items[j.item].report for j in store.judgements("compare")}
    splits["judged"] = [Report(0, "", text) for text in sorted(judged)]
    return without_shared({**splits, "new": reports}, list(splits))["new"]


def progress(round_: Round, inputs: Inputs) -> tuple[int, int]:
    """Pairs that somebody has judged or skipped, and all pairs of the study."""
    keys = {d.item.key for d in build_items("compare", inputs).drafts}
    with Store(round_.store) as store:
        judged = {j.item for j in store.judgements("compare")}
    return len(keys & judged), len(keys)


def preferred(round_: Round) -> bool:
    """Whether a judgement of the round prefers an answer: a tie or a skip gives no pair."""
    with Store(round_.store) as store:
        return bool(preferences(store))


def retrain(round_: Round, console: Console, *, resume: bool = False) -> None:
    """Train the round's reward model and PPO on the earlier pairs and the experts' new ones.

    Raises:
        UserError: if the judgements hold no preference, or as the stages do.
    """
    from lite_chex.train.ppo_loop import train_ppo
    from lite_chex.train.reward import train_rm

    reward = Stage(round_.recipe, "reward")
    if not reward.finished:
        if not (resume and reward.dir.is_dir()):  # an interrupted training goes on with the pairs it began with
            _take_over(Stage(round_.before, "sft"), Stage(round_.recipe, "sft"))
            _gather_pairs(round_, console)
        train_rm(round_.recipe, console, resume=resume)
    train_ppo(round_.recipe, console, resume=resume)


def _gather_pairs(round_: Round, console: Console) -> None:
    """The pairs of the round before (made now where it has none yet), then this round's own."""
    people = round_.dir / PEOPLE_FILE
    with Store(round_.store, create=False) as store:
        count = write_preferences(store, people)
        judged = len(store.judgements("compare"))
    if not count:
        raise UserError(f"{round_.store}: {judged} judgements, but no preference among them; a tie or skip gives none")
    findings = round_.recipe.findings
    earlier, data = round_.before.run_dir / PAIRS_FILE, round_.before.data
    if not earlier.is_file() and (data.preference or data.preference_pairs):
        make_preferences(round_.before, console)
    require_fresh(round_.before, PAIRS)
    groups = [g for path in (earlier, people) if path.is_file() for g in read_pairs(path, findings)]
    total = write_pairs(round_.dir / PAIRS_FILE, groups, findings)
    record_pairs(round_.recipe, sampled=bool(data.preference))
    console.print(f"{count} new pairs of {judged} judgements, beside {total - count} earlier ones", highlight=False)


def _take_over(source: Stage, to: Stage) -> None:
    temporary = to.dir.with_name(f".{to.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source.dir, temporary)
    shutil.rmtree(to.dir, ignore_errors=True)
    temporary.replace(to.dir)


def before_and_after(round_: Round, console: Console) -> list[EvalInput]:
    """The evaluator's bundles of the earlier run, each with this round's stages beside the earlier ones."""
    from lite_chex.train.stages import evaluate_run

    own = round_.recipe.model_copy(deep=True)
    own.eval.stages = [s for s in own.eval.stages if s in RETRAINED]
    note = f"round {round_.number}: reward model and PPO trained again with the new pairs; same SFT, same seed."
    bundles = []
    for old, new in zip(evaluate_run(round_.before, console), evaluate_run(own, console), strict=True):
        earlier = [name for name in ("PPO", "SFT") if name in old.systems]
        bundles.append(
            replace(
                old,
                systems=_both(round_, old.systems, new.systems),
                format_errors=_both(round_, old.format_errors, new.format_errors),
                probabilities=_both(round_, old.probabilities, new.probabilities),
                notes=[*old.notes, note],
                baseline=_named(earlier[0], round_.number - 1) if earlier else None,
            )
        )
    return bundles


def _both(round_: Round, old: dict[str, T], new: dict[str, T]) -> dict[str, T]:
    numbered = ((old, round_.number - 1), (new, round_.number))
    return {_named(name, number): value for part, number in numbered for name, value in part.items()}


def _named(system: str, number: int) -> str:
    return f"{system}, round {number}" if number and system in ("best of K", "DPO", "PPO") else system


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
