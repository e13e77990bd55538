"""What a stage was made from: a stage of an earlier SFT is refused by the next one, and left out of the tables."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from lite_chex.errors import UserError
from lite_chex.recipe import Recipe
from lite_chex.train.dpo import train_dpo
from lite_chex.train.lineage import changed, parents, record_pairs, stale
from lite_chex.train.ppo_loop import train_ppo
from lite_chex.train.preferences import make_preferences
from lite_chex.train.reward import train_rm
from lite_chex.train.run import MADE_FROM, PAIRS_FILE, MetricsLog, Stage
from lite_chex.train.sft import train_sft
from lite_chex.train.stages import evaluate_run
from lite_chex.train.trainer import BestSoFar, Selection
from tests.conftest import make_recipe

QUIET = Console(quiet=True)


SMALL = (
    "data.train.0.limit=24",
    "data.validation.0.limit=6",
    "data.preference.0.limit=8",
    "data.test.0.limit=6",
    "preferences.num_samples=2",
    "sft.max_steps=1",
    "dpo.max_steps=1",
)


def write_adapter(recipe: Recipe, stage: str, content: bytes) -> None:
    folder = Stage(recipe, stage).dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(content)


@pytest.fixture
def run(tiny_base: Path, tmp_path: Path) -> Recipe:
    """A run whose parts are files of a few bytes: SFT, pairs sampled from it, a reward model."""
    recipe = make_recipe(tiny_base, tmp_path)
    write_adapter(recipe, "sft", b"first")
    (recipe.run_dir / PAIRS_FILE).write_text("{}\n")
    record_pairs(recipe, sampled=True)
    Stage(recipe, "reward").begin(False, parents(recipe, "reward"))
    write_adapter(recipe, "reward", b"reward")
    return recipe


def test_nothing_is_stale_until_something_is_made_again(run: Recipe) -> None:
    assert stale(run, ("preferences", "reward", "ppo")) is None
    write_adapter(run, "sft", b"second")
    assert changed(run, "preferences") == ["sft"]
    assert changed(run, "reward") == ["sft"]
    assert stale(run, ("preferences", "reward")) == (
        f"{run.run_dir}: preferences.jsonl and reward were made from an earlier SFT; "
        "run litechex preferences, then litechex train-rm to make them again"
    )
    write_adapter(run, "sft", b"first")  # the same seed gives the same adapter: nothing is lost
    assert stale(run, ("preferences", "reward")) is None


def test_pairs_are_stale_where_what_ranked_them_changed(run: Recipe, tmp_path: Path) -> None:
    run.preferences.validation_fraction = 0.5  # no pair hangs on it
    assert changed(run, "preferences") == []
    run.preferences.missed = 3.0
    assert stale(run, ("preferences",)) == (
        f"{run.run_dir}: preferences.jsonl was made from an earlier recipe (seed, preferences); "
        "run litechex preferences to make it again"
    )
    record_pairs(run, sampled=True)
    source = run.data.preference[0]
    gold = tmp_path / "gold.csv"
    gold.write_bytes(Path(str(source.labels)).read_bytes())
    run.data.preference = [source.model_copy(update={"labels": str(gold)})]
    record_pairs(run, sampled=True)
    assert changed(run, "preferences") == []
    gold.write_text(gold.read_text().replace("-1.0", "1.0"))
    assert changed(run, "preferences") == ["data.preference"]


def test_new_pairs_make_the_reward_model_stale(run: Recipe) -> None:
    with (run.run_dir / PAIRS_FILE).open("a") as file:
        file.write("{}\n")
    assert changed(run, "reward") == ["preferences"]
    assert "reward was made from an earlier preferences.jsonl" in (stale(run, ("reward",)) or "")


def test_pairs_that_people_made_are_of_no_sft(run: Recipe) -> None:
    record_pairs(run, sampled=False)
    write_adapter(run, "sft", b"second")
    assert changed(run, "preferences") == []


def test_a_file_put_in_the_place_of_the_pairs_has_no_record(run: Recipe) -> None:
    (run.run_dir / PAIRS_FILE).write_text('{"by": "hand"}\n')
    write_adapter(run, "sft", b"second")
    assert changed(run, "preferences") == []


def test_resume_refuses_to_mix(run: Recipe) -> None:
    reward = Stage(run, "reward")
    reward.begin(True, parents(run, "reward"))
    write_adapter(run, "sft", b"second")
    with pytest.raises(UserError, match=r"sft was made again.*without --resume"):
        reward.begin(True, parents(run, "reward"))
    (run.run_dir / PAIRS_FILE).write_text("other pairs\n")
    with pytest.raises(UserError, match="sft and preferences were made again"):
        reward.begin(True, parents(run, "reward"))
    reward.begin(False, parents(run, "reward"))
    assert changed(run, "reward") == []


def test_a_stage_that_is_finished_is_not_trained_again_by_resume(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path, *SMALL)
    train_sft(recipe, QUIET)
    written = Stage(recipe, "sft").adapter_config.with_name("adapter_model.safetensors")
    before, console = written.stat().st_mtime_ns, Console(file=io.StringIO(), width=300)
    train_sft(recipe, console, resume=True)
    assert written.stat().st_mtime_ns == before
    assert "sft: finished before; without --resume it is trained again" in console.file.getvalue()
    recipe.sft.learning_rate /= 2
    with pytest.raises(UserError, match="section sft changed since"):
        train_sft(recipe, QUIET, resume=True)


def test_reward_is_not_resumed_with_other_held_out_pairs(run: Recipe) -> None:
    Stage(run, "reward").begin(False, parents(run, "reward"))
    run.preferences.validation_fraction = 0.5
    with pytest.raises(UserError, match="section preferences changed since"):
        Stage(run, "reward").begin(True, parents(run, "reward"))


@pytest.mark.parametrize("higher", [False, True])
def test_the_best_is_the_same_from_the_log_as_it_was(tmp_path: Path, higher: bool) -> None:
    """A tie is no improvement, also where the log has rounded the figure that it ties with."""
    selection = Selection("errors_per_report", higher_is_better=higher, patience=9)
    alive, log = BestSoFar(selection), MetricsLog(tmp_path)
    for step, value in enumerate((130 / 150, 130 / 150, 131 / 151, 131 / 151)):
        alive.update(step, value)
        log.log(step, {"validation/errors_per_report": value})
        resumed = BestSoFar.from_metrics(selection, tmp_path)
        assert (resumed.step, resumed.since) == (alive.step, alive.since)
        resumed.update(step + 1, value)
        assert resumed.step == alive.step
    log.close()


def test_sft_is_not_resumed_from_another_adapter_than_it_started_from(tiny_base: Path, tmp_path: Path) -> None:
    first = make_recipe(tiny_base, tmp_path / "first", *SMALL)
    train_sft(first, QUIET)
    start = Stage(first, "sft").dir
    second = make_recipe(tiny_base, tmp_path / "second", *SMALL, f"sft.start_from={start}")
    train_sft(second, QUIET)
    train_sft(second, QUIET, resume=True)
    train_sft(make_recipe(tiny_base, tmp_path / "first", *SMALL, "seed=8"), QUIET)
    with pytest.raises(UserError, match=r"sft: sft\.start_from was made again since .*; run without --resume"):
        train_sft(second, QUIET, resume=True)
    # What was made of the earlier one is none the worse for it.
    assert changed(second, "sft") == []
    assert list(evaluate_run(second, QUIET)[0].systems) == ["rules", "SFT"]


def test_the_stages_refuse_and_eval_leaves_out(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path, *SMALL)
    train_sft(recipe, QUIET)
    make_preferences(recipe, QUIET)
    train_dpo(recipe, QUIET)
    assert list(evaluate_run(recipe, QUIET)[0].systems) == ["rules", "SFT", "DPO"]

    again = make_recipe(tiny_base, tmp_path, *SMALL, "seed=8")
    console = Console(record=True, width=300, quiet=False, file=(tmp_path / "log").open("w"))
    train_sft(again, console)
    assert "preferences.jsonl and dpo were made from an earlier SFT" in console.export_text()
    for train in (train_rm, train_ppo, train_dpo):
        with pytest.raises(UserError, match=r"preferences\.jsonl was made from .* run litechex preferences to make it"):
            train(again, QUIET)
    assert Stage(again, "dpo").finished  # nothing already there was lost
    bundle = evaluate_run(again, QUIET)[0]
    assert list(bundle.systems) == ["rules", "SFT"]
    assert "litechex train-dpo" in bundle.notes[0]

    # A run from before there were records: taken as it is.
    old = make_recipe(tiny_base, tmp_path / "old", *SMALL, "seed=8")
    shutil.copytree(again.run_dir, old.run_dir)
    for record in old.run_dir.rglob(f"*{MADE_FROM}"):
        record.unlink()
    assert list(evaluate_run(old, QUIET)[0].systems) == ["rules", "SFT", "DPO"]

    make_preferences(again, QUIET)
    train_dpo(again, QUIET)
    bundle = evaluate_run(again, QUIET)[0]
    assert list(bundle.systems) == ["rules", "SFT", "DPO"]
    assert not any("earlier SFT" in note for note in bundle.notes)
