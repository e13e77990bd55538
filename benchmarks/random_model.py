"""A 7B-shaped causal model with random weights, quantised to NF4 layer by layer: nothing is downloaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

MODELS = {"mistral-7b": "mistralai/Mistral-7B-Instruct-v0.3", "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct"}
SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "vocab_size": 2304}


def build_model(folder: Path, name: str, small: bool) -> None:
    """Write a random NF4 checkpoint of that architecture, one layer at a time, with a tokenizer that fits it."""
    import bitsandbytes as bnb
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    from lite_chex.model.memory import KNOWN_MODELS

    folder.mkdir(parents=True, exist_ok=True)
    options = {**KNOWN_MODELS[MODELS[name]], **(SMALL if small else {})}
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    torch.manual_seed(0)
    shards: dict[str, dict[str, torch.Tensor]] = {}
    for key, parameter in model.named_parameters():
        shard = ".".join(key.split(".")[:3]) if ".layers." in key else "rest"
        tensors = shards.setdefault(shard, {})
        module = model.get_submodule(key.rpartition(".")[0])
        if parameter.dim() == 1:
            tensors[key] = (torch.zeros if key.endswith("bias") else torch.ones)(parameter.shape, dtype=dtype)
            continue
        weight = torch.randn(parameter.shape, device=device, dtype=torch.float32).mul_(0.02).to(dtype)
        if not isinstance(module, torch.nn.Linear) or module is head:
            tensors[key] = weight.cpu()
            continue
        packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        tensors[key] = packed.cpu()
        tensors |= {f"{key}.{k}": v.cpu() for k, v in state.as_dict(packed=True).items()}
    index: dict[str, str] = {}
    for shard, tensors in shards.items():
        file = f"{shard}.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head", "score"],
    )  # fmt: skip
    config.quantization_config = quantisation.to_dict()
    config.architectures, config.dtype = [type(model).__name__], dtype
    _write_tokenizer(folder, config)


def _write_tokenizer(folder: Path, config: Any) -> None:
    """The demo's tokenizer without its one-token spans, so that an answer has as many tokens as a real model's."""
    from lite_chex.model.backbone import load_tokenizer
    from lite_chex.recipe import shipped

    source = shipped("data_samples") / "tiny_base"
    for file in ("chat_template.jinja", "tokenizer_config.json"):
        shutil.copy(source / file, folder / file)
    whole = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    whole["added_tokens"] = [t for t in whole["added_tokens"] if '"' not in t["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    tokenizer = load_tokenizer(str(folder))
    for role in ("bos", "eos", "pad"):
        setattr(config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))
    config.save_pretrained(folder)
