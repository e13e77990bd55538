"""Bytes of a model's parts: weights in 4 bits, adapters, optimizer states (exact), activations (an estimate).

The shapes come from the model class itself, built on torch's meta device from its configuration: no weight is
loaded or downloaded. Weights, adapters, gradients and optimizer states are counted exactly (tested against real
models). Activations are counted from what autograd keeps of a layer, tensor by tensor, and are an estimate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from lite_chex.errors import UserError

if TYPE_CHECKING:
    from lite_chex.recipe import ModelSection

KNOWN_MODELS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-7B-Instruct": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    },
    "mistralai/Mistral-7B-Instruct-v0.3": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768, "tie_word_embeddings": False,
        "max_position_embeddings": 32768, "sliding_window": None,
    },
    "Qwen/Qwen3-8B": {
        "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": False, "max_position_embeddings": 40960,
    },
    "Qwen/Qwen3-4B-Instruct-2507": {
        "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": True, "max_position_embeddings": 262144,
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    },
}  # fmt: skip
"""Architectures of the shipped recipes' models, so that a plan needs no network."""

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
BLOCK = 64
NESTED_BLOCK = 256


@dataclass(frozen=True)
class Linear:
    name: str
    inputs: int
    outputs: int
    bias: bool

    @property
    def size(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shapes:
    """What the memory of a model follows from.

    linears: the layers that 4-bit loading quantises. other: parameters that stay in the compute dtype (norms,
    biases, embeddings; the output head apart). head: parameters of the output head, 0 where it is tied.
    """

    config: Any
    linears: tuple[Linear, ...]
    other: int
    head: int

    @property
    def layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def hidden(self) -> int:
        return int(self.config.hidden_size)

    @property
    def vocab(self) -> int:
        return int(self.config.vocab_size)

    @cached_property
    def head_dim(self) -> int:
        return int(getattr(self.config, "head_dim", None) or self.hidden // self.config.num_attention_heads)

    @property
    def queries(self) -> int:
        return int(self.config.num_attention_heads) * self.head_dim

    @property
    def keys(self) -> int:
        return int(self.config.num_key_value_heads) * self.head_dim

    @property
    def context(self) -> int:
        return int(self.config.max_position_embeddings)


def shapes_of(section: ModelSection) -> Shapes:
    """Shapes of a recipe's model, from its folder, the hub's cache, or the table of shipped ones; no network.

    Raises:
        UserError: if its configuration is nowhere on this machine.
    """
    return _shapes(section.model_name_or_path, section.trust_remote_code)


@lru_cache(maxsize=16)
def _shapes(name: str, trust_remote_code: bool) -> Shapes:
    import torch
    from transformers import AutoModelForCausalLM

    from lite_chex.model.backbone import check_decodable, quiet_libraries

    quiet_libraries()
    config = _config(name, trust_remote_code)
    check_decodable(config.model_type)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    tied = head is None or head.weight is model.get_input_embeddings().weight
    linears = tuple(
        Linear(name, module.in_features, module.out_features, module.bias is not None)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    total = sum(p.numel() for p in model.parameters())
    in_head = 0 if tied else head.weight.numel()
    return Shapes(config, linears, total - sum(x.size for x in linears) - in_head, in_head)


def _config(name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        if name not in KNOWN_MODELS:
            raise UserError(
                f'model.model_name_or_path: the configuration of "{name}" is neither a folder nor in the hub\'s cache, '
                "so its memory cannot be planned offline; download the model first, or name a folder"
            ) from None
    options = dict(KNOWN_MODELS[name])
    return AutoConfig.for_model(options.pop("model_type"), **options)


def quantised_bytes(size: int) -> int:
    """NF4 with double quantisation as bitsandbytes stores it: half a byte a weight, one byte a block of 64, four
    bytes per 256 blocks, and the two code books."""
    blocks = -(-size // BLOCK)
    return -(-size // 2) + blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 * 16 + 4 * 256 + 4


def base_bytes(shapes: Shapes, section: ModelSection, dtype: str, *, head: bool = True) -> int:
    """The base model's weights. head: with the output head (a reward model has a score of one row instead)."""
    width = DTYPE_BYTES[dtype]
    rest = shapes.other + (shapes.head if head else shapes.hidden)
    if not section.load_in_4bit:
        return width * (rest + sum(x.size for x in shapes.linears))
    return width * rest + sum(quantised_bytes(x.size) for x in shapes.linears)


def targeted(shapes: Shapes, section: ModelSection) -> list[Linear]:
    """The layers that LoRA adapts: PEFT's rules for ``all-linear``, a regular expression, or a list of names."""
    wanted = section.lora_target_modules
    if wanted == "all-linear":
        return list(shapes.linears)
    if isinstance(wanted, str):
        found = [x for x in shapes.linears if re.fullmatch(wanted, x.name)]
    else:
        found = [x for x in shapes.linears if any(x.name == w or x.name.endswith(f".{w}") for w in wanted)]
    if not found:
        raise UserError(f"model.lora_target_modules: {wanted} names no layer of this model")
    return found


def adapter_parameters(shapes: Shapes, section: ModelSection) -> int:
    return sum(section.lora_r * (x.inputs + x.outputs) for x in targeted(shapes, section))


def optimizer_bytes(parameters: int, optim: str) -> int:
    """Two fp32 moments per trainable parameter; an 8-bit optimizer keeps them in a byte each."""
    if "8bit" in optim:
        return 2 * parameters + 2 * 4 * -(-parameters // 256)
    return 8 * parameters


def layer_activation_bytes(shapes: Shapes, section: ModelSection, dtype: str, *, masked: bool) -> float:
    """What autograd keeps of one decoder layer per token, for LoRA on a frozen base.

    A frozen (quantised) linear layer keeps nothing; LoRA keeps its input in fp32 (adapters are fp32) and its own
    middle; a norm its input in fp32; attention q, k, v and its output; the MLP three of its inner vectors. With a
    mask, keys and values are repeated to the number of heads.
    """
    width = DTYPE_BYTES[dtype]
    cast = width != 4  # every LoRA layer casts its own copy; in fp32 all read the same tensor
    inner = int(shapes.config.intermediate_size)
    names = {x.name.split(".layers.0.")[-1] for x in targeted(shapes, section) if ".layers.0." in x.name}
    inputs = [x for x in shapes.linears if ".layers.0." in x.name and x.name.split(".layers.0.")[-1] in names]
    kept = 2 * 4 * shapes.hidden  # two norms
    if not cast:
        kept += 2 * 4 * shapes.hidden * bool(inputs)  # their outputs, read by q/k/v and gate/up
    for linear in inputs:
        shared = not cast and linear.inputs in (shapes.hidden, inner, shapes.queries)
        kept += (0 if shared else 4 * linear.inputs) + 4 * section.lora_r
    values = shapes.queries if masked else shapes.keys
    kept += width * (2 * shapes.queries + 2 * values) + 4 * int(shapes.config.num_attention_heads)
    kept += width * 4 * inner if not cast else width * 3 * inner
    return float(kept)


def forward_bytes(shapes: Shapes, section: ModelSection, dtype: str) -> float:
    """The largest transient of a forward pass per token: an MLP's inner vectors, twice over in fp32 for LoRA."""
    width, inner = DTYPE_BYTES[dtype], int(shapes.config.intermediate_size)
    cast = 4 * inner if width != 4 else 0
    return 3.0 * width * inner + cast + 4 * inner + 2 * width * shapes.hidden


def dequantised_bytes(shapes: Shapes, section: ModelSection, dtype: str) -> int:
    """The one layer that is unpacked at a time while a 4-bit base computes."""
    return DTYPE_BYTES[dtype] * max(x.size for x in shapes.linears) if section.load_in_4bit else 0


def cache_bytes(shapes: Shapes, dtype: str, tokens: float) -> float:
    """Keys and values of ``tokens`` tokens in every layer."""
    return 2.0 * shapes.layers * shapes.keys * DTYPE_BYTES[dtype] * tokens
