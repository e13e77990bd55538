"""The whole chain on a tiny real model: every stage trains, loads elsewhere, and survives ``kill -9``."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lite_chex.data.preferences import AnswerGroup
from lite_chex.data.splits import text_digest
from lite_chex.decode import packed
from lite_chex.errors import UserError
from lite_chex.model.adapters import read_score, role
from lite_chex.model.backbone import keep_gradients, load_base
from lite_chex.recipe import Recipe
from lite_chex.train.dpo import _rows, train_dpo
from lite_chex.train.examples import load_source, load_split, validation_gold
from lite_chex.train.ppo_loop import train_ppo
from lite_chex.train.preferences import PAIRS_FILE, make_preferences
from lite_chex.train.reward import reading, train_rm
from lite_chex.train.roles import Roles
from lite_chex.train.run import FINISHED, TRAINED_ON, Stage, read_metrics, trained_on
from lite_chex.train.setup import Setup
from lite_chex.train.sft import train_sft
from lite_chex.train.stages import StageLabeler, evaluate_run
from tests.conftest import make_recipe, train_all

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = make_recipe(tiny_base, tmp_path_factory.mktemp("runs"), "ppo.learning_rate=1e-3")
    train_all(recipe)
    train_sft(recipe, QUIET, on_gold=True)
    return recipe


def adapter(recipe: Recipe, stage: str) -> dict[str, torch.Tensor]:
    return load_file(Stage(recipe, stage).dir / "adapter_model.safetensors")


@pytest.mark.parametrize("stage", ["sft", "sft_gold", "reward", "ppo", "dpo"])
def test_a_stage_holds_what_the_contract_says(trained: Recipe, stage: str) -> None:
    folder = Stage(trained, stage).dir
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "recipe.yaml"):
        assert (folder / name).is_file(), name
    assert (folder / "chat_template.jinja").is_file()
    assert read_metrics(folder)
    assert list((folder / "tensorboard").iterdir())
    assert "not a medical device" in (folder / "README.md").read_text()
    assert all(t.dtype == torch.float32 for t in adapter(trained, stage).values())


def test_ppo_logs_every_figure(trained: Recipe) -> None:
    rows = [r for r in read_metrics(Stage(trained, "ppo").dir) if "score" in r]
    assert len(rows) == trained.ppo.total_iterations
    for key in ("score", "kl", "kl_coef", "entropy", "approxkl", "clipfrac", "loss/value", "value/explained_variance"):
        assert all(np.isfinite(r[key]) for r in rows), key
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)  # the policy starts at the reference
    validated = [r for r in read_metrics(Stage(trained, "ppo").dir) if "validation/errors_per_report" in r]
    assert validated[0]["step"] == 0


def test_adapters_load_with_autopeft(trained: Recipe) -> None:
    from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification

    for stage in ("sft", "ppo", "dpo"):
        model = AutoPeftModelForCausalLM.from_pretrained(str(Stage(trained, stage).dir))
        logits = model(input_ids=torch.tensor([[1, 2, 3]])).logits
        assert logits.isfinite().all()
    reward = AutoPeftModelForSequenceClassification.from_pretrained(str(Stage(trained, "reward").dir), num_labels=1)
    assert reward(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 1)


def test_ppos_reward_equals_autopefts_on_a_batch(trained: Recipe) -> None:
    """The shared causal base drops the score head on loading; PPO reads it itself and must agree."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import BitsAndBytesConfig

    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["score"]
    )
    folder = Stage(trained, "reward").dir
    other = AutoPeftModelForSequenceClassification.from_pretrained(
        str(folder), num_labels=1, quantization_config=quantised, dtype=torch.float32
    ).eval()
    keep_gradients(other)  # the repacked CPU kernel computes in bf16
    roles = Roles.load(trained, Stage(trained, "sft").dir, folder)
    prompts = roles.setup.prompt.prompt_ids(["No effusion.", "Heart size is normal. Possible edema."])
    answers = np.random.default_rng(0).integers(0, 4, (2, 3, 13)).astype(np.int8)
    batch = packed.pack(prompts, list(answers), roles.setup.template, roles.setup.backbone.tokenizer.pad_token_id)
    score = roles.rewards(batch, torch.full((6, 13, 4), 0.25).log()).score
    trunk = other.base_model.model.model
    with torch.no_grad():
        hidden = packed.hidden_states(trunk, batch)
        head, weight = other.base_model.model.score, roles.setup.decoder.weight
        theirs = reading(hidden, batch, head, trained.findings, trained.reward.pooling, weight)
    wanted = ((theirs.scores - roles.centre) / roles.scale).sum(-1)
    torch.testing.assert_close(score, wanted, atol=1e-4, rtol=1e-4)
    assert read_score(folder).shape == (1, 64)


def test_only_the_active_role_trains(trained: Recipe) -> None:
    roles = Roles.load(trained, Stage(trained, "sft").dir, Stage(trained, "reward").dir)
    for name, trainable in (("policy", True), ("ref", False), ("reward", False), ("value", True)):
        with role(roles.model, name, trainable):
            needs = {n.split(".")[-2] for n, p in roles.model.named_parameters() if p.requires_grad}
            assert needs == ({name} if trainable else set())


def test_gradients_reach_the_first_layer_after_an_eval_pass(trained: Recipe) -> None:
    """bitsandbytes repacks 4-bit weights on some CPUs in the first no-grad forward: then they would not."""
    roles = Roles.load(trained, Stage(trained, "sft").dir, Stage(trained, "reward").dir)
    prompts = roles.setup.prompt.prompt_ids(["No effusion."])
    batch = packed.pack(
        prompts, [np.full((1, 13), 3, np.int8)], roles.setup.template, roles.setup.backbone.tokenizer.pad_token_id
    )
    with torch.no_grad():
        roles.logits("policy", batch)
    roles.logits("policy", batch).sum().backward()
    first = [p for n, p in roles.model.named_parameters() if "layers.0." in n and ".policy." in n and "lora_B" in n]
    assert first
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in first)


def test_a_step_at_1e_6_changes_the_adapter(tiny_base: Path, tmp_path: Path) -> None:
    """In bf16 such a step would round away; TRL recasts adapters of a 4-bit base to bf16, we cast them back."""
    recipe = make_recipe(tiny_base, tmp_path, "sft.learning_rate=1e-6", "sft.max_steps=2", "sft.warmup_ratio=0")
    train_sft(recipe, QUIET)
    moved = [t for k, t in adapter(recipe, "sft").items() if "lora_B" in k]
    assert all(t.dtype == torch.float32 and t.abs().max() > 0 for t in moved)  # B starts at zero


def test_the_same_seed_gives_the_same_run(trained: Recipe, tiny_base: Path, tmp_path: Path) -> None:
    again = make_recipe(tiny_base, tmp_path, "ppo.learning_rate=1e-3")
    train_all(again)
    for stage in ("sft", "reward", "ppo", "dpo"):
        for key, tensor in adapter(trained, stage).items():
            torch.testing.assert_close(adapter(again, stage)[key], tensor, atol=0, rtol=0, msg=f"{stage} {key}")
    one, other = (evaluate_run(r, QUIET)[0].systems for r in (trained, again))
    assert set(one) - set(other) == {"SFT + gold"}
    for name in other:
        np.testing.assert_array_equal(one[name], other[name])


def test_test_reports_that_a_stage_has_seen_are_told(trained: Recipe) -> None:
    assert not [n for n in evaluate_run(trained, QUIET)[0].notes if n.startswith("Trained on")]
    later = trained.model_copy(deep=True)
    later.data.test, later.data.preference = trained.data.preference, trained.data.test
    (note,) = [n for n in evaluate_run(later, QUIET)[0].notes if n.startswith("Trained on")]
    found = dict(re.findall(r"(\w[\w+ ]*) on (\d+)[,;]", note.partition(": ")[2]))
    assert "SFT" not in found  # it has seen the training reports alone
    assert found["SFT + gold"] == found["PPO"] == "24"
    assert 0 < int(found["DPO"]) == int(found["best of K"]) < 24  # pairs that are held out teach nothing
    assert trained_on(Stage(trained, "sft").dir) < trained_on(Stage(trained, "ppo").dir)


def test_evaluate_run_has_every_stage(trained: Recipe) -> None:
    bundle = evaluate_run(trained, QUIET)[0]
    assert list(bundle.systems) == ["rules", "SFT", "SFT + gold", "best of K", "DPO", "PPO"]
    assert all(v.shape == bundle.gold.shape for v in bundle.systems.values())
    assert (trained.run_dir / "predictions" / "0" / "ppo.csv").is_file()


def test_a_kill_behind_the_last_step_can_be_resumed(trained: Recipe, tmp_path: Path) -> None:
    """The reward stage measures once more after training; a kill there leaves no ``finished.json``."""
    import shutil

    shutil.copytree(trained.output_dir, tmp_path / "runs")
    recipe = trained.model_copy(deep=True)
    recipe.output_dir = str(tmp_path / "runs")
    shutil.rmtree(Stage(recipe, "reward").dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lite_chex.train.reward.write_card", _killed)
        with pytest.raises(KeyboardInterrupt):
            train_rm(recipe, QUIET)
    assert not Stage(recipe, "reward").finished
    train_rm(recipe, QUIET, resume=True)
    for key, tensor in adapter(trained, "reward").items():
        torch.testing.assert_close(adapter(recipe, "reward")[key], tensor, atol=0, rtol=0)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_kill_behind_an_early_stop_is_no_reason_to_go_on(trained: Recipe, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained.output_dir, tmp_path / "runs")
    recipe = trained.model_copy(deep=True)
    recipe.output_dir = str(tmp_path / "runs")
    recipe.dpo.learning_rate = 1e-12  # no validation is better than the first
    recipe.dpo.max_steps, recipe.dpo.eval_steps, recipe.dpo.save_steps, recipe.dpo.early_stopping_patience = 6, 2, 2, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lite_chex.train.dpo.write_card", _killed)
        with pytest.raises(KeyboardInterrupt):
            train_dpo(recipe, QUIET)
    stopped = read_metrics(Stage(recipe, "dpo").dir)
    assert max(row["step"] for row in stopped) == 2
    train_dpo(recipe, QUIET, resume=True)
    assert read_metrics(Stage(recipe, "dpo").dir) == stopped
    assert "no better errors_per_report in 1 validations" in (Stage(recipe, "dpo").dir / FINISHED).read_text()


def test_dpo_learns_no_decision_that_was_forced(trained: Recipe) -> None:
    setup = Setup(trained, load_base(trained.model, for_training=False))
    forced, free = (0, *(3,) * 12), (3,) * 13
    (row,) = _rows(setup, [AnswerGroup("1", "Edema.", [forced, free], [(0, 1)])], True)
    assert sum(row["chosen_mask"]) == 12
    assert sum(row["rejected_mask"]) == 13
    assert row["chosen_mask"].index(1) == row["rejected_mask"].index(1)


def test_the_kl_coefficient_in_the_log_is_the_one_that_was_used(trained: Recipe, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained.output_dir, tmp_path / "runs")
    recipe = trained.model_copy(deep=True)
    recipe.output_dir, recipe.ppo.adaptive_kl, recipe.ppo.target_kl = str(tmp_path / "runs"), True, 100.0
    recipe.ppo.total_iterations = 2
    train_ppo(recipe, QUIET)
    used = [r["kl_coef"] for r in read_metrics(Stage(recipe, "ppo").dir) if "kl_coef" in r]
    assert used == pytest.approx([recipe.ppo.kl_coef, recipe.ppo.kl_coef * 0.98])


def test_labels_are_made_anew_for_another_length(trained: Recipe) -> None:
    def systems(length: int) -> tuple[dict[str, np.ndarray], str]:
        recipe, console = trained.model_copy(deep=True), Console(record=True, width=200, file=io.StringIO())
        recipe.model.max_length = length
        (bundle,) = evaluate_run(recipe, console)
        return bundle.format_errors, console.export_text()

    whole, _ = systems(trained.model.max_length)
    setup = StageLabeler(trained, QUIET).setup
    lengths = sorted(map(len, setup.prompt.prompt_ids(load_source(trained.data.test[0], trained).texts)))
    short, said = systems(lengths[12] + setup.template.max_answer_length)
    assert "with SFT" in said
    assert not whole
    assert short["PPO"].any()
    again, said = systems(trained.model.max_length)
    assert "with SFT" in said
    assert not again


def test_the_reward_is_read_as_it_was_trained(trained: Recipe) -> None:
    recipe = trained.model_copy(deep=True)
    recipe.reward.pooling = "last"
    folders = Stage(trained, "sft").dir, Stage(trained, "reward").dir
    one, other = (Roles.load(r, *folders) for r in (trained, recipe))
    assert one.pooling == other.pooling == "candidates"
    texts = load_source(trained.data.test[0], trained).texts[:4]
    answers = np.full((4, 2, 13), 3, dtype=np.int8)
    answers[:, 1, 0] = 0
    expected = StageLabeler(trained, QUIET).rewards(texts, answers)
    np.testing.assert_array_equal(StageLabeler(recipe, QUIET).rewards(texts, answers), expected)


def test_best_of_k_is_made_anew_for_another_k(trained: Recipe) -> None:
    def said(**preferences: float) -> str:
        recipe = trained.model_copy(deep=True)
        recipe.preferences = recipe.preferences.model_copy(update=preferences)
        console = Console(record=True, width=200, file=io.StringIO())
        evaluate_run(recipe, console)
        return console.export_text()

    evaluate_run(trained, QUIET)
    assert "with best of K" not in said()
    assert "with best of K" in said(num_samples=trained.preferences.num_samples + 1)
    assert "with best of K" in said(temperature=0.7)


def test_dpo_may_keep_the_preferred_answers_likelihood(trained: Recipe, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained.output_dir, tmp_path / "runs")
    recipe = trained.model_copy(deep=True)
    recipe.output_dir, recipe.dpo.sft_coef = str(tmp_path / "runs"), 0.5
    recipe.dpo.max_steps = recipe.dpo.logging_steps = 1
    shutil.rmtree(Stage(recipe, "dpo").dir)
    train_dpo(recipe, QUIET)
    first = next(r for r in read_metrics(Stage(recipe, "dpo").dir) if "loss" in r)
    # The policy starts at the reference: DPO's own loss is ln 2.
    decisions = -0.5 * first["logps/chosen"] / (first["loss"] - np.log(2))
    assert 11.99 < decisions < 12.9  # No Finding is forced in most answers


def test_sft_goes_on_from_another_runs_adapter(trained: Recipe, tiny_base: Path, tmp_path: Path) -> None:
    start = Stage(trained, "sft").dir
    recipe = make_recipe(
        tiny_base, tmp_path, f"sft.start_from={start}", "sft.learning_rate=1e-12", "sft.max_steps=1", "sft.eval_steps=1"
    )
    train_sft(recipe, QUIET)
    for key, tensor in adapter(trained, "sft").items():
        torch.testing.assert_close(adapter(recipe, "sft")[key], tensor, atol=1e-9, rtol=0)
    assert [r["step"] for r in read_metrics(Stage(recipe, "sft").dir) if "validation/macro_f1" in r] == [0, 1]
    recipe.sft.start_from = str(tmp_path)
    with pytest.raises(UserError, match="no adapter there"):
        train_sft(recipe, QUIET)


def test_going_on_holds_out_nothing_that_the_earlier_training_saw(
    trained: Recipe, tiny_base: Path, tmp_path: Path
) -> None:
    def go_on(name: str, start: Path, *more: str) -> tuple[Path, str]:
        console = Console(record=True, width=200, file=io.StringIO())
        options = [f"sft.start_from={start}", "sft.validation_fraction=0.4", "sft.max_steps=1", *more]
        folder = train_sft(make_recipe(tiny_base, tmp_path / name, *options), console)
        return folder, console.export_text()

    first = Stage(trained, "sft").dir
    seen = set((first / TRAINED_ON).read_text().split())
    assert len(seen) == 29
    second, said = go_on("same", first)
    assert "29 reports with weak labels (rules), 1 held out" in said  # not 18 and 12
    assert set((second / TRAINED_ON).read_text().split()) == seen
    third, said = go_on("more", first, "data.train.0.limit=50")
    assert "30 reports with weak labels (rules), 20 held out" in said
    assert len(set((third / TRAINED_ON).read_text().split()) - seen) == 1
    (second / TRAINED_ON).write_text("\n".join(map(text_digest, load_split(trained, "train")[0].texts)))
    with pytest.raises(UserError, match=r"every report was in the training that sft\.start_from goes on from"):
        go_on("none", second)


def test_variants_join_the_training_reports_and_not_the_held_out(tiny_base: Path, tmp_path: Path) -> None:
    for share in (0, 2):
        console = Console(record=True, width=200, file=io.StringIO())
        train_sft(make_recipe(tiny_base, tmp_path, f"sft.variants={share}", "sft.max_steps=1"), console)
        said = console.export_text()
        told = "29 reports with weak labels (rules), 1 held out"
        assert (told if not share else "87 reports with weak labels (rules); 58 variants, 1 held out") in said, said


def test_presence_codes_choose_the_checkpoint_beside_gold_and_teach_sft(trained: Recipe, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained.output_dir, tmp_path / "runs")
    recipe = trained.model_copy(deep=True)
    recipe.output_dir, recipe.ppo.total_iterations = str(tmp_path / "runs"), 1
    [gold] = recipe.data.validation
    stray = tmp_path / "gold.csv"  # with a row of no report: each stage that reads it says so
    stray.write_text(Path(str(gold.labels)).read_text() + "nobody,1.0" + "," * 13 + "\n")
    gold.labels = str(stray)
    codes = gold.model_copy(update={"presence": True, "limit": 8})
    recipe.data.validation = [codes, gold]
    recipe.data.preference[0].presence = True
    for stage in ("reward", "ppo", "sft_gold"):
        shutil.rmtree(Stage(recipe, stage).dir)
    (recipe.run_dir / PAIRS_FILE).unlink()
    path = Stage(recipe, "reward").dir / FINISHED
    for train in (partial(train_sft, on_gold=True), train_rm, train_ppo):
        console = Console(record=True, width=200, file=io.StringIO())
        train(recipe, console)
        assert "gold.csv: 1 of its rows left out, no report of" in console.export_text(), train
        if path.is_file():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 0.9}))
    first = next(r for r in read_metrics(Stage(recipe, "ppo").dir) if r["step"] == 0)
    of_gold, of_codes = first["validation/errors_per_report_macro"], first["validation/errors_per_report_presence"]
    assert of_gold != of_codes
    assert first["validation/errors_per_report"] == pytest.approx((24 * of_gold + 8 * of_codes) / 32)
    summary = json.loads(path.read_text())
    both = validation_gold(recipe, "this test")
    assert [e.presence for e in both] == [False, True]
    # The greedy answers of SFT, counted by the reward stage and by PPO's first validation.
    assert summary["greedy_errors_per_report"] == pytest.approx(first["validation/errors_per_report"], abs=1 / 32)
    recipe.data.validation = [codes]
    assert [e.presence for e in validation_gold(recipe, "this test")] == [True]
    recipe.data.validation = []
    with pytest.raises(UserError, match="PPO needs reports with gold"):
        train_ppo(recipe, QUIET)


def test_the_cells_of_gold_teach_the_reward_model(trained: Recipe, tmp_path: Path) -> None:
    import shutil

    from lite_chex.data.preferences import read_pairs

    shutil.copytree(trained.output_dir, tmp_path / "runs")
    found = []
    for coef in (0.0, 40.0):
        recipe = trained.model_copy(deep=True)
        recipe.output_dir, recipe.reward.gold_cells_coef = str(tmp_path / "runs"), coef
        recipe.reward.learning_rate, recipe.reward.max_steps, recipe.reward.eval_steps = 3e-3, 12, 12
        shutil.rmtree(Stage(recipe, "reward").dir)
        train_rm(recipe, QUIET)
        roles = Roles.load(recipe, Stage(recipe, "sft").dir, Stage(recipe, "reward").dir)
        groups = [g for g in read_pairs(recipe.run_dir / PAIRS_FILE, recipe.findings) if g.gold is not None]
        prompts = roles.setup.prompt.prompt_ids([g.report for g in groups])
        golds = [g.array[[g.gold]] for g in groups]
        batch = packed.pack(prompts, golds, roles.setup.template, roles.setup.backbone.tokenizer.pad_token_id)
        with role(roles.model, "reward"), torch.no_grad():
            hidden = packed.hidden_states(roles.setup.backbone.trunk, batch)
            head, weight = lambda h: h[..., :1] * 0, roles.setup.decoder.weight
            read = reading(hidden, batch, head, recipe.findings, recipe.reward.pooling, weight)
        found.append(read.scores.sum(-1).mean())  # without the head: the log-probability of gold
    assert found[1] > found[0] + 1


def test_checkpointed_ppo_is_the_same_ppo_and_drops_nothing(trained: Recipe, tmp_path: Path) -> None:
    """transformers checkpoints in training mode alone, where the adapters' dropout would be on."""
    import shutil

    found = []
    for checkpointing in (False, True):
        recipe = trained.model_copy(deep=True)
        recipe.output_dir, recipe.ppo.total_iterations = str(tmp_path / str(checkpointing)), 2
        recipe.ppo.gradient_checkpointing = checkpointing
        shutil.copytree(trained.output_dir, recipe.output_dir)
        shutil.rmtree(Stage(recipe, "ppo").dir)
        for stage in ("sft", "reward"):
            config = Stage(recipe, stage).dir / "adapter_config.json"
            config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_dropout": 0.5}))
        train_ppo(recipe, QUIET)
        found.append(adapter(recipe, "ppo"))
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, atol=1e-6, rtol=1e-5)


COMMANDS = {"sft": "train-sft", "reward": "train-rm", "ppo": "train-ppo", "dpo": "train-dpo"}


def test_what_is_known_of_the_return_leaves_a_certain_policy_no_advantage(trained: Recipe) -> None:
    roles = Roles.load(trained, Stage(trained, "sft").dir, Stage(trained, "reward").dir)
    assert trained.reward.pooling == "candidates"
    prompts = roles.setup.prompt.prompt_ids(["No effusion."])
    answers = np.random.default_rng(0).integers(0, 4, (1, 3, 13)).astype(np.int8)
    batch = packed.pack(prompts, list(answers), roles.setup.template, roles.setup.backbone.tokenizer.pad_token_id)
    roles.score.zero_()  # the head is what cannot be known before the choice
    certain = torch.nn.functional.one_hot(batch.values, 4).float().clamp(min=1e-30).log()
    found = roles.rewards(batch, certain)
    # At the last decision everything is known: all before it is earned, and its own choice is certain.
    torch.testing.assert_close(found.known[:, -1], found.score, atol=1e-4, rtol=0)
    chosen = found.candidates.gather(-1, batch.values[..., None])
    torch.testing.assert_close(chosen, torch.zeros_like(chosen), atol=1e-4, rtol=0)
    uniform = torch.full((3, 13, 4), 0.25).log()
    advantages = roles.rewards(batch, uniform).candidates
    # Of an undecided policy the candidates' advantages cancel, and differ as the reward model's log-probabilities do.
    # (No Finding apart, which may not take all four.)
    torch.testing.assert_close(advantages[:, :-1].mean(-1), torch.zeros(3, 12), atol=1e-4, rtol=0)
    with role(roles.model, "reward"), torch.no_grad():
        hidden = packed.hidden_states(roles.setup.backbone.trunk, batch)
    logits = packed.decision_logits(hidden, batch, roles.setup.decoder.weight) / roles.scale
    torch.testing.assert_close(
        advantages[:, 0, 0] - advantages[:, 0, 3], logits[:, 0, 0] - logits[:, 0, 3], atol=1e-4, rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
def test_kill_and_resume_equals_an_uninterrupted_run(trained: Recipe, tmp_path: Path, stage: str) -> None:
    import shutil

    copied = tmp_path / "runs"
    shutil.copytree(trained.output_dir, copied)
    shutil.rmtree(copied / "test" / stage)
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(trained.to_yaml())
    command = [sys.executable, "-m", "lite_chex", COMMANDS[stage], str(recipe_file), "--output-dir", str(copied)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    checkpoints = copied / "test" / stage / "checkpoints"
    deadline = time.time() + 120
    done = ("trainer_state.json", "state.json")
    while process.poll() is None and time.time() < deadline:
        if any(path for name in done for path in checkpoints.glob(f"*/{name}")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr.read().decode() if process.stderr else ""
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=200)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from" in resumed.stdout
    before = adapter(trained, stage)
    after = load_file(copied / "test" / stage / "adapter_model.safetensors")
    for key, tensor in before.items():
        torch.testing.assert_close(after[key], tensor, atol=0, rtol=0, msg=key)
    steps = [r["step"] for r in read_metrics(copied / "test" / stage)]
    assert steps == [r["step"] for r in read_metrics(Stage(trained, stage).dir)]


def test_stages_that_need_sft_say_so(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    for run in (make_preferences, train_rm, train_ppo, train_dpo):
        with pytest.raises(UserError, match="no finished sft stage"):
            run(recipe, QUIET)
    with pytest.raises(UserError, match="no finished sft stage"):
        evaluate_run(recipe, QUIET)


def test_a_reward_model_at_chance_is_refused(trained: Recipe) -> None:
    path = Stage(trained, "reward").dir / FINISHED
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"accuracy": 0.5}))
    try:
        with pytest.raises(UserError, match="at chance"):
            train_ppo(trained, QUIET)
    finally:
        path.write_text(kept)
    assert Stage(trained, "ppo").finished  # nothing already there was lost


def test_preferences_are_trls_format(trained: Recipe) -> None:
    lines = (trained.run_dir / PAIRS_FILE).read_text().splitlines()
    row = json.loads(lines[0])
    assert set(row) == {"prompt", "chosen", "rejected", "study_id", "source", "annotator"}
    assert trained.findings.from_json(row["chosen"]) is not None
    assert row["source"] == "gold"
    marked = [r for r in map(json.loads, lines) if "gold" in r]
    assert 0 < len(marked) < len(lines)
    assert all(set(r) == {*row, "gold"} and r["gold"] is True for r in marked)
