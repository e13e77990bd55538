"""The memory plan: weights, adapters and optimizer counted exactly, activations near what autograd keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lite_chex.errors import UserError
from lite_chex.model import memory
from lite_chex.model.adapters import new_adapter
from lite_chex.model.backbone import Backbone, load_base
from lite_chex.model.plan import GIB, plan_recipe
from lite_chex.recipe import ModelSection, load_recipe, shipped_recipes
from tests.conftest import make_recipe, model_section

WIDE_LORA = {"lora_r": 6}


def stored_bytes(backbone: Backbone) -> int:
    """Every byte of the frozen base, the quantisation constants of its 4-bit layers included."""
    import bitsandbytes as bnb

    model = backbone.model
    count = sum(p.numel() * p.element_size() for n, p in model.named_parameters() if "lora_" not in n)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            state = module.weight.quant_state
            parts = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
            count += sum(t.numel() * t.element_size() for t in parts)
    return count


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("four_bits", [True, False])
def test_base_weights_to_the_byte(tiny_base: Path, dtype: str, four_bits: bool) -> None:
    section = model_section(tiny_base, dtype=dtype, load_in_4bit=four_bits)
    assert memory.base_bytes(memory.shapes_of(section), section, dtype) == stored_bytes(load_base(section))


def test_reward_base_has_a_score_instead_of_a_head(tiny_base: Path) -> None:
    section = model_section(tiny_base, load_in_4bit=True)
    planned = memory.base_bytes(memory.shapes_of(section), section, "float32", head=False)
    assert planned == stored_bytes(load_base(section, num_labels=1))


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"], r".*layers\.1\.mlp\..*_proj"])
def test_adapter_and_optimizer_to_the_byte(tiny_base: Path, targets: str | list[str]) -> None:
    section = model_section(tiny_base, lora_target_modules=targets, **WIDE_LORA)
    shapes = memory.shapes_of(section)
    backbone = load_base(section)
    new_adapter(backbone, section)
    trained = [p for p in backbone.model.parameters() if p.requires_grad]
    parameters = sum(p.numel() for p in trained)
    assert memory.adapter_parameters(shapes, section) == parameters
    assert all(p.dtype == torch.float32 for p in trained)
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = [t for s in optimizer.state.values() for n, t in s.items() if n != "step"]
    assert memory.optimizer_bytes(parameters, "adamw_torch") == sum(t.numel() * t.element_size() for t in moments)


def test_no_layer_for_the_adapter_is_a_sentence(tiny_base: Path) -> None:
    section = model_section(tiny_base, lora_target_modules=["query"])
    with pytest.raises(UserError, match="lora_target_modules"):
        memory.adapter_parameters(memory.shapes_of(section), section)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [True, False])
def test_activations_are_near_what_autograd_keeps(tiny_base: Path, dtype: str, masked: bool) -> None:
    section = model_section(tiny_base, dtype=dtype, load_in_4bit=True)
    backbone = load_base(section)
    new_adapter(backbone, section)
    backbone.model.train()
    parameters = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    length = 48
    options = {"attention_mask": torch.ones(1, 1, length, length, dtype=torch.bool).tril()} if masked else {}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        hidden = backbone.trunk(input_ids=torch.arange(length)[None], use_cache=False, **options).last_hidden_state
    hidden.sum().backward()  # the graph was whole while it was counted
    shapes = memory.shapes_of(section)
    planned = memory.layer_activation_bytes(shapes, section, dtype, masked=masked) * shapes.layers * length
    assert planned == pytest.approx(sum(kept.values()), rel=0.1)


def test_known_architectures_have_their_published_sizes() -> None:
    """Parameters in total, from the model cards: 7.62 B, 7.25 B, 8.19 B, 4.02 B, 134.5 M."""
    published = (7.616e9, 7.248e9, 8.191e9, 4.022e9, 134.5e6)
    for name, size in zip(memory.KNOWN_MODELS, published, strict=True):
        shapes = memory.shapes_of(ModelSection(model_name_or_path=name))
        total = sum(x.size for x in shapes.linears) + shapes.other + shapes.head
        assert total == pytest.approx(size, rel=1e-3), name


def test_unknown_model_offline_is_a_sentence() -> None:
    with pytest.raises(UserError, match="cannot be planned offline"):
        memory.shapes_of(ModelSection(model_name_or_path="nobody/nothing"))


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if n.endswith("gb")])
def test_shipped_recipes_fit_their_card(name: str) -> None:
    recipe = load_recipe(name)
    plan = plan_recipe(recipe, recipe.hardware.min_gpu_gb)
    assert plan.fits, [plan.warning(s.name) for s in plan.stages]
    # The room that fragmentation and estimates need: nothing is planned above 90%.
    assert max(s.total for s in plan.stages) < 0.9 * plan.limit
    assert plan.dtype in ("bfloat16", "float16")


def test_four_roles_share_one_base() -> None:
    ppo = plan_recipe(load_recipe("qwen2.5-7b-12gb"), 12).stage("ppo")
    assert [p.name for p in ppo.parts if p.group == "base"] == ["base weights (4-bit)"]
    assert [p.name.split()[1] for p in ppo.parts if p.group == "adapters"] == ["policy", "ref", "reward", "value"]
    assert ppo.total < 12 * GIB


def test_suggestion_is_the_largest_that_fits(tiny_base: Path, tmp_path: Path) -> None:
    small = plan_recipe(make_recipe(tiny_base, tmp_path), card_gb=1.0)
    stage = small.stage("sft")
    batch = stage.largest_batch
    assert batch >= 1
    fits = plan_recipe(make_recipe(tiny_base, tmp_path, f"sft.per_device_train_batch_size={batch}"), 1.0)
    too_big = plan_recipe(make_recipe(tiny_base, tmp_path, f"sft.per_device_train_batch_size={4 * batch}"), 1.0)
    assert fits.warning("sft") is None
    warning = too_big.warning("sft")
    assert warning is not None
    assert f"set sft.per_device_train_batch_size={batch}" in warning


def test_checkpointing_and_value_head_need_less(tiny_base: Path, tmp_path: Path) -> None:
    plain = plan_recipe(make_recipe(tiny_base, tmp_path, "ppo.value_model=adapter"))
    lean = plan_recipe(make_recipe(tiny_base, tmp_path, "sft.gradient_checkpointing=true", "ppo.value_model=head"))
    assert lean.stage("sft").group("activations") < plain.stage("sft").group("activations")
    assert lean.stage("ppo").group("optimizer") < plain.stage("ppo").group("optimizer")
    assert lean.stage("ppo").group("adapters") < plain.stage("ppo").group("adapters")


def test_a_hopeless_card_is_told_so() -> None:
    recipe = load_recipe("qwen2.5-7b-12gb")
    warning = plan_recipe(recipe, 4).warning("sft")
    assert warning is not None
    assert "take a smaller model" in warning
    open_graph = load_recipe("qwen2.5-7b-12gb", ["sft.gradient_checkpointing=false"])
    assert "set sft.gradient_checkpointing=true" in str(plan_recipe(open_graph, 6.5).warning("sft"))
