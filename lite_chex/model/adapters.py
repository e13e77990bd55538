"""LoRA adapters on one shared base: making, saving, loading, and switching roles."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lite_chex.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lite_chex.model.backbone import Backbone
    from lite_chex.recipe import ModelSection

SCORE_KEY = "score.weight"


def new_adapter(backbone: Backbone, section: ModelSection, task_type: str = "CAUSAL_LM") -> None:
    """Wrap the backbone's model with a fresh fp32 LoRA named ``default`` (in place)."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=section.lora_r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        target_modules=section.lora_target_modules,
        modules_to_save=["score"] if task_type == "SEQ_CLS" else None,
        bias="none",
        task_type=task_type,
        base_model_name_or_path=backbone.name,
    )
    backbone.model = get_peft_model(backbone.model, config)
    to_fp32(backbone.model)


def load_adapter(backbone: Backbone, folder: Path, name: str, *, trainable: bool) -> None:
    """Put a saved adapter on the backbone under ``name``, in fp32 (in place).

    A reward adapter loses its score head here: the causal model has none, see :func:`read_score`.

    Raises:
        UserError: if the folder holds no adapter for this base.
    """
    from peft import PeftModel

    check_adapter(folder)
    try:
        if hasattr(backbone.model, "peft_config"):
            backbone.model.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
        else:
            backbone.model = PeftModel.from_pretrained(
                backbone.model, str(folder), adapter_name=name, is_trainable=trainable
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"{folder}: this adapter does not fit {backbone.name} ({str(error).splitlines()[0][:120]})"
        ) from None
    to_fp32(backbone.model)


def check_adapter(folder: Path) -> None:
    """Raises UserError unless ``folder`` holds an adapter in safetensors."""
    for needed in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / needed).is_file():
            raise UserError(f"{folder}: no adapter there ({needed} is missing)")


def to_fp32(model: nn.Module) -> None:
    """Adapters train at 1e-6..1e-5: in bf16 most of such updates round away."""
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data = parameter.data.float()


@contextmanager
def tensors_kept(model: nn.Module) -> Iterator[None]:
    """Undo what is done to trainable tensors within: TRL's constructors round those of a 4-bit model to bf16."""
    before = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in before:
            parameter.data = before[name]


def for_inference(backbone: Backbone) -> None:
    """Cast the adapters to the base's compute dtype: on a CPU fp32 adapters make a bf16 base half as fast."""
    for name, parameter in backbone.model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(backbone.causal.dtype)


def save_adapter(model: Any, folder: Path, name: str = "default") -> None:
    """Write adapter ``name`` to the root of ``folder`` in PEFT's format (safetensors)."""
    temporary = folder / ".saving"
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(str(temporary), selected_adapters=[name], save_embedding_layers=False)
    # PEFT writes any adapter not called "default" into a folder of its name.
    source = temporary if name == "default" else temporary / name
    for written in ("adapter_model.safetensors", "adapter_config.json"):
        (source / written).replace(folder / written)
    shutil.rmtree(temporary)


def lora_tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    check_adapter(folder)
    return load_file(folder / "adapter_model.safetensors")


def copy_into_default(model: Any, folder: Path) -> None:
    """Copy a saved adapter's LoRA tensors into the adapter ``default`` (of another task type too).

    Raises:
        UserError: if a tensor finds no place: shape or target modules differ.
    """
    import torch

    own = dict(model.named_parameters())
    with torch.no_grad():
        for key, tensor in lora_tensors(folder).items():
            if "lora_" not in key:
                continue
            place = key.replace(".lora_A.weight", ".lora_A.default.weight")
            place = place.replace(".lora_B.weight", ".lora_B.default.weight")
            if place not in own or own[place].shape != tensor.shape:
                raise UserError(
                    f"{folder}: its adapter does not fit this recipe's LoRA (lora_r or target modules differ)"
                )
            own[place].copy_(tensor.to(own[place]))


def read_score(folder: Path) -> torch.Tensor:
    """The reward adapter's score head, fp32 ``[1, hidden]``, read from its safetensors.

    Raises:
        UserError: if the adapter has none (it is no reward model).
    """
    for key, tensor in lora_tensors(folder).items():
        if key.endswith(SCORE_KEY):
            return tensor.float()
    raise UserError(f"{folder}: the adapter has no score head, so it is no reward model")


@contextmanager
def role(model: Any, name: str, trainable: bool = False) -> Iterator[None]:
    """Run the shared base as role ``name``; asserts that only a trainable role's tensors require gradients.

    PEFT's ``set_adapter`` changes which adapter requires gradients, so every switch goes through here.
    """
    model.base_model.set_adapter(name, inference_mode=not trainable)
    wanted = {n for n, p in model.named_parameters() if p.requires_grad}
    expected = {n for n, _ in model.named_parameters() if f".{name}." in n} if trainable else set()
    if not wanted <= expected or (trainable and not wanted):
        raise AssertionError(f"role {name}: wrong tensors require gradients ({len(wanted)}, expected {len(expected)})")
    yield


def role_parameters(model: Any, name: str) -> Sequence[nn.Parameter]:
    """The LoRA tensors of one role, in a fixed order."""
    return [p for n, p in model.named_parameters() if f".{name}." in n and "lora_" in n]
