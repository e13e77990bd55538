"""The card benchmark: its hand-built checkpoint is a real 4-bit model, and every stage runs on it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lite_chex.model.backbone import load_base
from lite_chex.recipe import ModelSection

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "card_fit.py"


@pytest.fixture(scope="module")
def card_fit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("card_fit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["card_fit"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:.*quantization_config.*")
def test_built_checkpoint_holds_what_was_quantised(card_fit: ModuleType, tmp_path: Path) -> None:
    import bitsandbytes as bnb

    card_fit.build_model(tmp_path, "mistral-7b", small=True)
    backbone = load_base(ModelSection(model_name_or_path=str(tmp_path), dtype="float32"))
    layers = [m for m in backbone.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(layers) == 14  # 7 in each of 2 layers; the head stays in 16 bits
    for layer in layers:
        weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        assert weight.float().std().item() == pytest.approx(0.02, rel=0.1)
    assert {layer.compute_dtype for layer in layers} == {torch.float32}  # the recipe's, not the checkpoint's bf16
    hidden = backbone.trunk(input_ids=torch.arange(5)[None]).last_hidden_state
    assert hidden.isfinite().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*quantization_config.*")
def test_every_stage_is_measured(card_fit: ModuleType, tmp_path: Path) -> None:
    [rows] = card_fit.run_all(["qwen2.5-7b"], [12.0], 3, True, tmp_path)
    assert [r.stage for r in rows] == ["sft", "reward", "ppo", "dpo", "label"]
    assert not any(r.failed for r in rows)
    assert all(r.seconds > 0 and r.planned_gb > 0 for r in rows)
    assert all(r.tokens_per_second or r.reports_per_second for r in rows)
    assert "ppo" in [str(c) for c in card_fit.table_of(rows, "here", False).columns[2].cells]
    # Gradients reached the adapter through checkpointed layers.
    from lite_chex.model.adapters import lora_tensors

    folder = tmp_path / "run-qwen2.5-7b-12" / "runs" / "card_fit" / "sft"
    second = [t for k, t in lora_tensors(folder).items() if "lora_B" in k]
    assert all(t.abs().max() > 0 for t in second)
