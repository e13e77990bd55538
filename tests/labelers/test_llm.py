"""The fine-tuned model as a labeler: a real SFT run of a tiny model, merged and not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from lite_chex.cli import app
from lite_chex.decode.temperature import FILE, Calibration
from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14
from lite_chex.labelers.base import TOO_LONG
from lite_chex.labelers.llm import LLMLabeler, find_stage
from lite_chex.recipe import Recipe
from lite_chex.train.calibrate import calibrate_run
from lite_chex.train.sft import train_sft
from lite_chex.train.stages import evaluate_run
from tests.conftest import make_recipe

TEXTS = ["No pleural effusion.", "Heart size is normal. Possible edema.", "Left rib fracture."]


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = make_recipe(tiny_base, tmp_path_factory.mktemp("runs"), "sft.max_steps=3")
    train_sft(recipe, Console(quiet=True))
    return recipe


def test_merging_changes_no_label(run: Recipe) -> None:
    """Base and adapter become plain fp32 weights: the same model to rounding."""
    apart = LLMLabeler.load(run.run_dir, merge=False).label(TEXTS)
    merged = LLMLabeler.load(run.run_dir, merge=True).label(TEXTS)
    np.testing.assert_array_equal(apart.values, merged.values)
    assert apart.probabilities is not None
    assert merged.probabilities is not None
    np.testing.assert_allclose(apart.probabilities, merged.probabilities, atol=1e-3)
    np.testing.assert_allclose(merged.probabilities.sum(-1), 1, atol=1e-5)
    assert (merged.probabilities.argmax(-1) == merged.values).all()


def test_the_draft_and_the_batch_change_nothing(run: Recipe) -> None:
    plain = LLMLabeler.load(run.run_dir, draft="none", batch_size=1).label(TEXTS * 5)
    drafted = LLMLabeler.load(run.run_dir).label(TEXTS * 5)
    np.testing.assert_array_equal(plain.values, drafted.values)


def test_a_report_that_does_not_fit_is_an_error_row(run: Recipe) -> None:
    found = LLMLabeler.load(run.run_dir).label([TEXTS[0], "effusion " * 3000])
    assert found.errors is not None
    assert found.errors[0] is None
    assert str(found.errors[1]).startswith(TOO_LONG)
    assert "effusion" not in str(found.errors[1])


def test_which_stage_a_run_means(run: Recipe, tmp_path: Path) -> None:
    assert find_stage(run.run_dir).name == "sft"
    assert find_stage(run.run_dir / "sft") == run.run_dir / "sft"
    with pytest.raises(UserError, match="no adapter there"):
        find_stage(tmp_path)


def test_a_reward_model_is_no_labeler(tmp_path: Path) -> None:
    """Its adapter loads into the same base, and would answer from a head that it never trained."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "task_type": "SEQ_CLS"}')
    with pytest.raises(UserError, match="reward model"):
        find_stage(tmp_path)


def test_an_adapter_cut_short_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LO')
    with pytest.raises(UserError, match=r"adapter_config\.json: not a JSON file"):
        find_stage(tmp_path)


def test_other_findings_are_refused(run: Recipe) -> None:
    with pytest.raises(UserError, match="trained on 13 findings"):
        LLMLabeler.load(run.run_dir, findings=CHEXPERT14)


def test_fingerprint_changes_with_beams(run: Recipe) -> None:
    assert LLMLabeler.load(run.run_dir).fingerprint() != LLMLabeler.load(run.run_dir, beams=2).fingerprint()


def test_batch_size_is_chosen_and_announced(run: Recipe) -> None:
    chosen, asked = LLMLabeler.load(run.run_dir), LLMLabeler.load(run.run_dir, batch_size=2)
    assert chosen.announce(False) == [f"batch: up to 4,096 tokens a pass ({chosen.batch.partition('(')[2]}"]
    assert asked.announce(False) == ["batch: 2 reports a pass, as asked"]
    assert "not calibrated" in asked.announce(True)[1]


def test_calibration_changes_probabilities_and_no_label(run: Recipe) -> None:
    before = LLMLabeler.load(run.run_dir)
    done = CliRunner().invoke(app, ["calibrate", str(run.run_dir / "recipe.yaml")])
    assert done.exit_code == 0, done.output
    assert "T unc" in done.output
    after, made = LLMLabeler.load(run.run_dir), Calibration.load(run.run_dir / "sft")
    assert made is not None
    assert made.nll_after < made.nll_before  # three steps of training leave much to mend
    plain, calibrated = before.label(TEXTS), after.label(TEXTS)
    np.testing.assert_array_equal(plain.values, calibrated.values)
    assert plain.probabilities is not None
    assert calibrated.probabilities is not None
    assert np.abs(plain.probabilities - calibrated.probabilities).max() > 0.01
    np.testing.assert_allclose(calibrated.probabilities.sum(-1), 1, atol=1e-5)
    assert made.source in after.announce(True)[1]
    assert before.fingerprint() != after.fingerprint()

    # The stages' tables use it too.
    run.eval.stages = ["rules", "sft"]
    bundle = evaluate_run(run, Console(quiet=True))[0]
    assert list(bundle.probabilities) == ["SFT"]
    assert bundle.probabilities["SFT"].shape == (*bundle.gold.shape, 4)
    assert any("calibrated on" in note for note in bundle.notes)

    path = run.run_dir / "sft" / FILE
    path.write_text(path.read_text(encoding="utf-8").replace(made.fingerprint, "0" * 16), encoding="utf-8")
    stale = LLMLabeler.load(run.run_dir)
    assert "of another adapter" in stale.announce(True)[1]
    np.testing.assert_array_equal(stale.label(TEXTS).probabilities, plain.probabilities)
    assert any("of another adapter" in note for note in evaluate_run(run, Console(quiet=True))[0].notes)
    path.unlink()


def test_presence_codes_cannot_calibrate(run: Recipe) -> None:
    other = run.model_copy(deep=True)
    other.data.validation[0].presence = True
    with pytest.raises(UserError, match="presence codes never say negative"):
        calibrate_run(other, Console(quiet=True))
    with pytest.raises(UserError, match="does not label"):
        calibrate_run(run, Console(quiet=True), "reward")
