"""Who loads the base for SFT: unsloth where it is installed and the card supports it, else transformers.

Not yet run on a GPU: ``choose_backend`` is tested on a CPU, ``load_with_unsloth`` follows the source of unsloth
2026.10.9 and is untested. Its trunk takes no KV cache of transformers and cuts rows at ``max_seq_length``. Its fast
kernels take one adapter, so reward model, PPO and DPO always run on plain PEFT; the adapter that SFT writes is PEFT's
in both cases.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from typing import TYPE_CHECKING

from lite_chex.errors import UserError

if TYPE_CHECKING:
    from lite_chex.model.backbone import Backbone
    from lite_chex.recipe import ModelSection

MIN_CAPABILITY = (7, 0)
MIN_VERSION = "2026.10"
"""Versions before 2026.9.14 attend both ways where xFormers gets no mask, so that SFT would see its own answers."""
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def choose_backend(requested: str) -> tuple[str, str]:
    """``unsloth`` or ``transformers``, and why, for one printed line.

    Raises:
        UserError: if the recipe asks for unsloth and it cannot be used here.
    """
    if requested == "transformers":
        return "transformers", "the recipe says so"
    obstacle = _obstacle()
    if obstacle is None:
        return "unsloth", "the recipe says so" if requested == "unsloth" else "installed, and the card supports it"
    if requested == "unsloth":
        raise UserError(f"model.backend: unsloth cannot be used here ({obstacle}); set model.backend=transformers")
    return "transformers", obstacle


def _obstacle() -> str | None:
    """What keeps unsloth from being used, None if nothing does. Importing it is left to the loader: it patches
    transformers."""
    import torch
    from packaging.version import Version

    if not torch.cuda.is_available():
        return "no CUDA device"
    capability = torch.cuda.get_device_capability(0)
    if capability < MIN_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is below 7.0"
    if importlib.util.find_spec("unsloth") is None:
        return "unsloth is not installed"
    installed = importlib.metadata.version("unsloth")
    if Version(installed) < Version(MIN_VERSION):
        return f"unsloth {installed} is older than {MIN_VERSION}"
    return None


def silence() -> None:
    """Switch off what unsloth and the hub would report; must come before unsloth is imported."""
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["UNSLOTH_DISABLE_AUTO_UPDATES"] = "1"


def load_with_unsloth(section: ModelSection, max_seq_length: int, *, gradient_checkpointing: bool = True) -> Backbone:
    """The base with a fresh fp32 LoRA ``default`` already on it, as :func:`load_base` plus :func:`new_adapter` give.

    max_seq_length: the widest batch, its padding included.

    Raises:
        UserError: if the architecture is not supported or unsloth cannot load the model.
    """
    silence()
    import torch
    from transformers import AutoConfig
    from unsloth import FastLanguageModel

    from lite_chex.model.adapters import to_fp32
    from lite_chex.model.backbone import Backbone, check_decodable, load_tokenizer
    from lite_chex.model.hardware import choose_dtype

    name = section.model_name_or_path
    tokenizer = load_tokenizer(name, section.trust_remote_code)
    dtype, reason = choose_dtype(section.dtype)
    try:
        check_decodable(AutoConfig.from_pretrained(name, trust_remote_code=section.trust_remote_code).model_type)
        model, _ = FastLanguageModel.from_pretrained(
            model_name=name,
            max_seq_length=max_seq_length,
            dtype=getattr(torch, dtype),
            load_in_4bit=section.load_in_4bit,
            trust_remote_code=section.trust_remote_code,
            use_exact_model_name=True,  # not a differently quantised copy: PPO loads this very base
        )
        targets = section.lora_target_modules
        model = FastLanguageModel.get_peft_model(
            model,
            r=section.lora_r,
            lora_alpha=section.lora_alpha,
            lora_dropout=section.lora_dropout,
            target_modules=ALL_LINEAR if targets == "all-linear" else targets,
            bias="none",
            use_gradient_checkpointing="unsloth" if gradient_checkpointing else False,
        )
    except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(f'model "{name}": unsloth cannot load it ({first}); set model.backend=transformers') from None
    model.config.pad_token_id = tokenizer.pad_token_id
    to_fp32(model)
    return Backbone(model, tokenizer, name, f"{dtype} ({reason}), unsloth", takes_cache=False)
