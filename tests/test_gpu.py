"""What only a card can show (``pytest -m gpu``); elsewhere skipped. Not yet run on one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lite_chex.decode import packed
from lite_chex.model.adapters import for_inference, load_adapter, role
from lite_chex.model.backbone import load_base
from lite_chex.recipe import Recipe
from lite_chex.train.examples import load_split
from lite_chex.train.roles import Roles
from lite_chex.train.run import Stage, read_metrics
from lite_chex.train.setup import Setup
from lite_chex.train.sft import train_sft
from lite_chex.train.trainer import StageCallback
from tests.benchmarks.test_card_fit import card_fit  # noqa: F401  (a fixture)
from tests.conftest import make_recipe, train_all

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or not asked for by -m gpu"),
]
QUIET = Console(quiet=True)
STAGES = ("sft", "reward", "ppo", "dpo")


@pytest.fixture(scope="module", params=["float16", "bfloat16"])
def trained(request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The chain in 4 bits, with gradient checkpointing, as the recipes for cards have it."""
    checkpointing = [f"{stage}.gradient_checkpointing=true" for stage in STAGES]
    dtype = f"model.dtype={request.param}"
    recipe = make_recipe(tiny_base, tmp_path_factory.mktemp("runs"), dtype, "ppo.learning_rate=1e-3", *checkpointing)
    recipe.model.backend = "transformers"
    train_all(recipe)
    return recipe


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_learns(trained: Recipe, stage: str) -> None:
    tensors = load_file(Stage(trained, stage).dir / "adapter_model.safetensors")
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values())
    second = [t for k, t in tensors.items() if "lora_B" in k]
    assert second
    assert all(t.abs().max() > 0 for t in second)
    for row in read_metrics(Stage(trained, stage).dir):
        assert all(np.isfinite(v) for v in row.values() if isinstance(v, float))


def test_labels_are_the_baselines(trained: Recipe) -> None:
    backbone = load_base(trained.model, for_training=False)
    assert backbone.device.type == "cuda"
    load_adapter(backbone, Stage(trained, "sft").dir, "default", trainable=False)
    for_inference(backbone)
    setup = Setup(trained, backbone)
    bodies = setup.prompt.body_ids(load_split(trained, "test")[0].texts)
    exact = setup.decoder.stepwise(bodies)
    np.testing.assert_array_equal(setup.decoder.decode(bodies).values, exact.values)


def test_adapters_switch_and_the_reference_stays(trained: Recipe) -> None:
    roles = Roles.load(trained, Stage(trained, "sft").dir, Stage(trained, "reward").dir)
    prompts = roles.setup.prompt.prompt_ids(["No effusion.", "Heart size is normal. Possible edema."])
    answers = list(np.random.default_rng(0).integers(0, 4, (2, 3, 13)).astype(np.int8))
    pad = roles.setup.backbone.tokenizer.pad_token_id
    batch = packed.pack(prompts, answers, roles.setup.template, pad, roles.setup.backbone.device)
    ref, policy = roles.logits("ref", batch), roles.logits("policy", batch)
    torch.testing.assert_close(policy.detach(), ref)  # both start from SFT
    optimizer = torch.optim.SGD(roles.policy_parameters(), lr=1.0)
    with role(roles.model, "policy", trainable=True):
        policy.sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.allclose(roles.logits("policy", batch), ref)
        torch.testing.assert_close(roles.logits("ref", batch), ref)


def test_sft_resumes_on_the_card(trained: Recipe, tmp_path: Path) -> None:
    whole = load_file(Stage(trained, "sft").dir / "adapter_model.safetensors")
    recipe = trained.model_copy(deep=True)
    recipe.output_dir = str(tmp_path)
    stage = Stage(recipe, "sft")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageCallback, "validate", interrupted)  # at step 3, one after a checkpoint
        with pytest.raises(KeyboardInterrupt):
            train_sft(recipe, QUIET)
    assert [p.name for p in stage.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]
    train_sft(recipe, QUIET, resume=True)
    for key, tensor in load_file(stage.dir / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, whole[key], atol=1e-3, rtol=1e-2)


def test_unsloth_trains_an_adapter_that_peft_loads(tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("unsloth")
    recipe = make_recipe(tiny_base, tmp_path, "model.backend=unsloth", "sft.gradient_checkpointing=true")
    train_sft(recipe, QUIET)
    folder = Stage(recipe, "sft").dir
    assert [r for r in read_metrics(folder) if "validation/errors_per_report" in r]
    backbone = load_base(recipe.model, for_training=False)
    load_adapter(backbone, folder, "default", trainable=False)
    assert any(p.abs().max() > 0 for n, p in backbone.model.named_parameters() if "lora_B" in n)


@pytest.mark.filterwarnings("ignore:.*quantization_config.*")
def test_every_stage_is_measured_on_the_card(card_fit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    [rows] = card_fit.run_all(["mistral-7b"], [12.0], 3, True, tmp_path)
    assert [r.stage for r in rows] == ["sft", "reward", "ppo", "dpo", "label"]
    assert not any(r.failed for r in rows)
    assert all(r.peak_gb > 0 for r in rows)
