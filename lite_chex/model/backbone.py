"""Loading a base model (4-bit or not), its tokenizer, and the pieces the decoder needs of it."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lite_chex.errors import UserError
from lite_chex.model.hardware import choose_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lite_chex.recipe import ModelSection

DECODABLE = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "olmo2")
"""Dense full-attention architectures: their cache can be rolled back and their attention masked."""


@dataclass
class Backbone:
    """A causal language model with its tokenizer. ``model`` may be a PeftModel around it.

    takes_cache: whether its trunk takes transformers' KV cache (unsloth's does not).
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    name: str
    dtype_reason: str = ""
    takes_cache: bool = True

    @property
    def causal(self) -> PreTrainedModel:
        """The transformers model below PEFT's wrapper (LoRA layers stay injected)."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def trunk(self) -> PreTrainedModel:
        """The decoder without its head: token ids -> hidden states."""
        base = self.causal
        return getattr(base, base.base_model_prefix)

    @property
    def device(self) -> torch.device:
        return self.causal.get_input_embeddings().weight.device  # type: ignore[union-attr,return-value]

    def candidate_weight(self, candidates: Any) -> torch.Tensor:
        """Rows of the output head for the candidates: ``[findings, 4] -> fp32 [findings, 4, hidden]``."""
        import torch

        weight = self.causal.get_output_embeddings().weight
        ids = torch.as_tensor(candidates, device=weight.device)
        return weight[ids].float()


def quiet_libraries() -> None:
    """No library chatter on the console: progress and figures are ours to print."""
    import logging
    import warnings

    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", message=".*use_cache.*")
    for name in ("bitsandbytes", "trl", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _offline_if_local(name: str) -> bool:
    """A folder on disk never needs the hub; a name that is neither folder nor hub name is a mistake."""
    if Path(name).is_dir():
        return True
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name
    if looks_like_path:
        raise UserError(f'model.model_name_or_path: there is no folder "{name}", and it is no hub name (owner/model)')
    return False


def check_base(section: ModelSection) -> None:
    """What can be said of a recipe's base without importing anything heavy.

    Raises:
        UserError: if its name is neither a folder nor a hub name.
    """
    _offline_if_local(section.model_name_or_path)


def load_tokenizer(name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model or of a stage's folder.

    Raises:
        UserError: if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    local = _offline_if_local(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, local_files_only=local, trust_remote_code=trust_remote_code, clean_up_tokenization_spaces=False
        )
    except (OSError, ValueError) as error:
        raise UserError(f'model "{name}": its tokenizer cannot be loaded ({first_line(error)})') from None
    if not tokenizer.is_fast:
        raise UserError(f'model "{name}": needs a fast tokenizer (tokenizer.json)')
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Padding with the end token would move the reward's pooling; any other token will do, it is masked.
        unused = next((t for t in (tokenizer.unk_token, tokenizer.bos_token) if t and t != tokenizer.eos_token), None)
        tokenizer.pad_token = unused or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def load_base(
    section: ModelSection, *, num_labels: int | None = None, for_training: bool = True, packed: bool = False
) -> Backbone:
    """Load the base model in 4 bits or in the compute dtype; ``num_labels`` gives a classification head.

    packed: for rows of several answers (:mod:`lite_chex.decode.packed`).

    Raises:
        UserError: if it does not exist, is of an unsupported architecture, or this machine cannot run it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    quiet_libraries()
    gc.collect()  # a base that an earlier step of the same command has let go
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    name = section.model_name_or_path
    local = _offline_if_local(name)
    tokenizer = load_tokenizer(name, section.trust_remote_code)
    dtype_name, reason = choose_dtype(section.dtype)
    dtype = getattr(torch, dtype_name)
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": section.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(name, **options)
        check_decodable(config.model_type)
        attention = section.attn_implementation
        if packed and attention == "flash_attention_2":
            attention = "sdpa"
        options |= {"dtype": dtype, "attn_implementation": attention}
        if section.load_in_4bit:
            check_4bit()
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=["lm_head", "score"],
            )
        if torch.cuda.is_available():
            options["device_map"] = {"": 0}
            if torch.cuda.get_device_capability(0) < (8, 0):
                without_grouped_attention()
        if num_labels is None:
            model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, **options)
        else:
            options |= {"num_labels": num_labels, "pad_token_id": tokenizer.pad_token_id}
            model = AutoModelForSequenceClassification.from_pretrained(name, use_safetensors=True, **options)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f'model "{name}": cannot be loaded ({first_line(error)})') from None
    except torch.cuda.OutOfMemoryError:
        raise UserError(f'model "{name}": does not fit this card; see litechex plan') from None
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = not for_training
    if section.load_in_4bit:
        keep_gradients(model)
        compute_in(model, dtype)
    model.requires_grad_(False)
    model.eval()
    return Backbone(model, tokenizer, name, f"{dtype_name} ({reason})")


def check_4bit() -> None:
    """4-bit needs bitsandbytes with a backend for this machine.

    Raises:
        UserError: naming the key to change.
    """
    try:
        import bitsandbytes as bnb
        import torch

        weight = torch.randn(64, 64)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        bnb.functional.quantize_4bit(weight.to(device), quant_type="nf4", compress_statistics=True)
    except Exception as error:
        raise UserError(
            f"model.load_in_4bit: bitsandbytes cannot quantise on this machine ({first_line(error)}); "
            "set model.load_in_4bit=false or install a bitsandbytes build for it"
        ) from None


def check_decodable(model_type: str) -> None:
    """Refuse architectures whose cache cannot be rolled back.

    Raises:
        UserError: naming the architecture and the supported ones.
    """
    if model_type not in DECODABLE:
        raise UserError(
            f'model type "{model_type}" is not supported by the decision decoder: it needs dense full attention '
            f"({', '.join(DECODABLE)}); hybrid, recurrent and shared-KV models cannot roll their cache back"
        )


def keep_gradients(model: Any) -> None:
    """Keep bitsandbytes 0.50 from repacking 4-bit weights on CPUs with AVX512-BF16.

    After a repacked no-grad forward the gradient to a layer's input is silently None, so nothing below
    it learns.
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def compute_in(model: Any, dtype: torch.dtype) -> None:
    """Let 4-bit layers multiply in ``dtype``: a checkpoint that was quantised beforehand brings its own, and
    transformers keeps that (bf16 on a T4)."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.compute_dtype, module.compute_type_is_set = dtype, True


def without_grouped_attention() -> None:
    """Let transformers repeat the key and value heads for SDPA on cards before Ampere.

    Without a mask it leaves grouped heads to SDPA, whose kernels for them are flash (from compute capability 8.0 on)
    or plain matrix products with every score in memory (transformers #48633). Not yet run on such a card.
    """
    from transformers.integrations import sdpa_attention

    sdpa_attention.use_gqa_in_sdpa = lambda *_: False
