"""Recipes: every shipped one loads; every mistake is named at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lite_chex.errors import UserError
from lite_chex.recipe import Recipe, default_recipe, load_recipe, shipped_recipes


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.findings) in (13, 14)
    again = Recipe.model_validate(yaml.safe_load(recipe.to_yaml()))
    assert again == recipe


def test_there_are_recipes_for_each_card() -> None:
    needs = {load_recipe(n).hardware.min_gpu_gb for n in shipped_recipes()}
    assert {None, 12, 16, 24} <= needs


@pytest.mark.parametrize(
    ("memory", "name"),
    [(80, "qwen2.5-7b-24gb"), (23.7, "qwen2.5-7b-24gb"), (14.7, "qwen2.5-7b-16gb"), (11.9, "qwen2.5-7b-12gb")],
)
def test_the_default_is_the_largest_cards_and_qwen_of_equals(memory: float, name: str) -> None:
    assert default_recipe(memory) == name
    assert default_recipe(6) == "tiny-cpu"


def test_overrides() -> None:
    recipe = load_recipe(
        "tiny-cpu", ["sft.learning_rate=1e-5", "data.test.0.limit=9", "ppo.adaptive_kl=true", "seed=3"]
    )
    assert recipe.sft.learning_rate == 1e-5
    assert recipe.data.test[0].limit == 9
    assert recipe.ppo.adaptive_kl
    assert recipe.seed == 3


def test_all_mistakes_at_once_with_suggestions() -> None:
    with pytest.raises(UserError) as error:
        load_recipe("tiny-cpu", ["sft.learning_rat=1", "ppo.kl_coeff=0.1", "ppo.gamma=2", "model.lora_r=0"])
    message = str(error.value)
    assert "unknown key sft.learning_rat (did you mean learning_rate?)" in message
    assert "unknown key ppo.kl_coeff (did you mean kl_coef?)" in message
    assert "ppo.gamma" in message
    assert "model.lora_r" in message


@pytest.mark.parametrize("name", ["../other", "/elsewhere", "a/../../b", ".", ""])
def test_a_run_stays_below_its_output_dir(name: str) -> None:
    with pytest.raises(UserError, match=r"name: .* is no folder below output_dir"):
        load_recipe("tiny-cpu", [f"name='{name}'"])


def test_unknown_recipe_names_the_closest() -> None:
    with pytest.raises(UserError, match='did you mean "tiny-cpu"'):
        load_recipe("tiny-cpuu")


@pytest.mark.parametrize("text", ["a: [", "just text", "- 1"])
def test_unreadable_recipes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"r\.yaml"):
        load_recipe(path)


def test_a_slip_in_the_yaml_is_found_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nmodel: {model_name_or_path: tiny\ndata: {train: []}\n")
    with pytest.raises(UserError, match=r"line 3, column 5: expected ',' or '}'"):
        load_recipe(path)


def test_missing_sections_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nmodel: {}\n")
    with pytest.raises(UserError, match=r"model\.model_name_or_path is missing; data is missing"):
        load_recipe(path)


def test_bad_set_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"section\.key=value"):
        load_recipe("tiny-cpu", ["sft"])
    with pytest.raises(UserError, match="no place in a list"):
        load_recipe("tiny-cpu", ["data.test.7.limit=1"])


def test_renamed_findings_are_read_under_both_names() -> None:
    recipe = load_recipe(
        "tiny-cpu",
        ["data.rename_findings={Pleural Effusion: Fluid}", "data.custom_findings={Pleural Effusion: [wet pleura]}"],
    )
    findings = recipe.findings
    assert len(findings) == 13
    assert findings.column("Pleural Effusion") == findings.column("Fluid") == findings.index("Fluid")
    assert findings.phrases == {"Fluid": ("wet pleura",)}
    assert '"Fluid":"positive"' in findings.to_json([0] * 12 + [3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.rename_findings={Effusion: Fluid}", 'rename_findings: "Effusion" is no finding of paper13'),
        ("data.rename_findings={No Finding: Normal}", '"No Finding" is no finding of paper13 that can have'),
        ("data.rename_findings={Edema: Pneumonia}", "a finding is named twice"),
        ("data.custom_findings={No Finding: [well]}", '"No Finding" follows from the other findings'),
        ("data.custom_findings={'Rib \"x\"': [rib]}", "cannot name a finding"),
        ("data.custom_findings={Airspace Opacity: [haze]}", '"Airspace Opacity" is another name of Lung Opacity'),
    ],
)
def test_names_that_cannot_be_used_are_refused(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_recipe("tiny-cpu", [change])


def test_custom_findings_stand_before_no_finding() -> None:
    recipe = load_recipe("tiny-cpu", ["data.custom_findings={Scoliosis: [scoliosis, curvature]}"])
    assert recipe.findings.names[-2:] == ("Scoliosis", "No Finding")


def test_another_files_name_of_a_finding_is_a_name_like_others_in_a_set_of_ones_own() -> None:
    changes = ["data.findings=mine", "data.custom_findings={Airspace Opacity: [haze], Scoliosis: []}"]
    assert load_recipe("tiny-cpu", changes).findings.column("Airspace Opacity") == 0


def test_a_key_that_early_runs_saved_is_still_read(tmp_path: Path) -> None:
    saved = tmp_path / "recipe.yaml"
    saved.write_text(load_recipe("tiny-cpu").to_yaml().replace("ppo:\n", "ppo:\n  whiten_rewards: false\n"))
    assert "whiten_rewards" in saved.read_text()
    assert load_recipe(saved).ppo == load_recipe("tiny-cpu").ppo


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    """PyYAML lets the later one win: half a recipe would be lost unsaid."""
    path = tmp_path / "mine.yaml"
    text = shipped_recipes()["tiny-cpu"].read_text()
    path.write_text(text + "data: {findings: chexpert14}\n")
    with pytest.raises(UserError, match=r'mine.yaml: .*line \d+, column 1: the key "data" stands twice'):
        load_recipe(path)
    path.write_text("base: &base {seed: 3}\n" + text.replace("seed: 7", "<<: *base"))
    with pytest.raises(UserError, match="unknown key base"):  # merging is no repetition
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("name=2026-99-99", "the value is not readable YAML"),
        ("data.train.²=1", '"²" is no place in a list'),
        ("name.a=1", "name"),
        ("data.preference_pairs.0.foo=1", '"0" is a value, nothing stands below it'),
    ],
)
def test_overrides_that_cannot_be_are_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_recipe("tiny-cpu", ["data.preference_pairs=[a.jsonl]", override])


def test_a_date_that_there_is_not_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\ndescription: 2026-13-45\n")
    with pytest.raises(UserError, match=r"r\.yaml: not a readable YAML file \(month must be in 1"):
        load_recipe(str(path))
