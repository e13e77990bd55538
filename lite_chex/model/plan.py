"""What each stage of a recipe needs in memory, against the card, before it starts.

Weights, adapters, gradients and optimizer states are exact; activations, caches and what the driver keeps are
estimates (:mod:`lite_chex.model.memory`). Every stage is planned at its longest: rows of ``model.max_length``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lite_chex.errors import UserError
from lite_chex.model import memory
from lite_chex.model.hardware import choose_dtype, gpu_memory_gb

if TYPE_CHECKING:
    from rich.table import Table

    from lite_chex.recipe import Recipe

GIB = 2**30
NOMINAL = 0.93
"""Of a card's nominal gigabytes, what a process can have: a "12 GB" card shows 11.7 GiB, and the desktop is on it."""
CUDA_OVERHEAD = 0.7 * GIB
PROCESS_OVERHEAD = 0.9 * GIB
"""CUDA context, kernels and fragmentation; on a CPU, Python with torch loaded."""
HEAP_PIECES = 0.2
"""On a CPU: what the heap holds in pieces between small freed tensors, as a share of the activations. Peaks of the
process with it, measured to planned in GiB: SmolLM2's SFT at 8 x 512 tokens 6.57 to 6.09; its first four layers at 352
tokens 1.98 to 2.00 (SFT), 2.10 to 1.84 (reward), 1.34 to 1.31 (PPO), 2.62 to 2.48 (DPO)."""
DECODE_TOKENS = 4096
"""Tokens per decoding batch: DecisionDecoder's own default."""
PREFIX_TOKENS = 64
TOKENS_PER_FINDING = 9
"""Answer tokens per finding where the tokenizer is not on this machine (a byte-level BPE needs 7 to 9)."""
STAGES = ("sft", "reward", "ppo", "dpo", "label")
BATCH_KEY = {
    "sft": "sft.per_device_train_batch_size",
    "reward": "reward.per_device_train_batch_size",
    "ppo": "ppo.per_device_train_batch_size",
    "dpo": "dpo.per_device_train_batch_size",
    "label": "label.batch_size",
}


@dataclass(frozen=True)
class Part:
    """One line of a stage's bill. group: the column of the table. exact: counted, not estimated."""

    group: str
    name: str
    bytes: float
    exact: bool = False


@dataclass(frozen=True)
class StagePlan:
    """One stage at one batch size and length.

    batch: reports per forward pass, 0 where the decoder fills its own. tokens: of a row as the model sees it,
    for packed stages with all answers. largest_batch, largest_length: what would still fit; 0 is none.
    """

    name: str
    batch: int
    length: int
    tokens: int
    parts: tuple[Part, ...]
    limit: float
    largest_batch: int = 0
    largest_length: int = 0

    def group(self, name: str) -> float:
        return sum(p.bytes for p in self.parts if p.group == name)

    @property
    def total(self) -> float:
        """Peak bytes: training and decoding do not overlap, so the larger of the two counts."""
        fixed = sum(p.bytes for p in self.parts if p.group not in ("activations", "logits", "decoding"))
        return fixed + max(self.group("activations") + self.group("logits"), self.group("decoding"))

    @property
    def fits(self) -> bool:
        return self.total <= self.limit


@dataclass(frozen=True)
class Plan:
    """Memory of every stage. limit: bytes of the card (or machine) called ``where``."""

    recipe: str
    where: str
    limit: float
    dtype: str
    stages: tuple[StagePlan, ...]

    def stage(self, name: str) -> StagePlan:
        return next(s for s in self.stages if s.name == name)

    @property
    def fits(self) -> bool:
        return all(s.fits for s in self.stages)

    def warning(self, name: str) -> str | None:
        """One sentence where a stage will not fit, naming what to change; None where it does."""
        stage = self.stage(name)
        if stage.fits:
            return None
        text = f"{name} is planned at {stage.total / GIB:.1f} GiB, {self.where} has {self.limit / GIB:.1f}"
        if stage.largest_batch:
            return f"{text}: set {BATCH_KEY[name]}={stage.largest_batch}"
        if stage.largest_length:
            return f"{text}: set {BATCH_KEY[name]}=1 and model.max_length={stage.largest_length}"
        saving = any(p.group == "activations" and "checkpointed" not in p.name for p in stage.parts)
        return f"{text}: " + (f"set {name}.gradient_checkpointing=true" if saving else "take a smaller model")


@dataclass(frozen=True)
class _Sizes:
    """What all stages share, in bytes, and how many tokens an answer and the prompt's fixed part have."""

    recipe: Recipe
    shapes: memory.Shapes
    dtype: str
    answer: int
    prefix: int
    overhead: float
    pieces: float

    @property
    def lora(self) -> int:
        return memory.adapter_parameters(self.shapes, self.recipe.model)

    def base(self, head: bool = True) -> Part:
        found = memory.base_bytes(self.shapes, self.recipe.model, self.dtype, head=head)
        bits = "4-bit" if self.recipe.model.load_in_4bit else self.dtype
        return Part("base", f"base weights ({bits})", found, exact=True)

    def adapter(self, role: str, extra: int = 0) -> Part:
        return Part("adapters", f"adapter {role} (fp32)", 4 * (self.lora + extra), exact=True)

    def trained(self, role: str, optim: str, extra: int = 0) -> list[Part]:
        parameters = self.lora + extra
        return [
            Part("optimizer", f"gradients of {role}", 4 * parameters, exact=True),
            Part("optimizer", f"optimizer states of {role}", memory.optimizer_bytes(parameters, optim), exact=True),
        ]

    def activations(self, rows: int, tokens: int, checkpointing: bool, masked: bool = False) -> Part:
        """A forward and backward pass over ``rows`` rows."""
        shapes, section = self.shapes, self.recipe.model
        width, count = memory.DTYPE_BYTES[self.dtype], rows * tokens
        layer = memory.layer_activation_bytes(shapes, section, self.dtype, masked=masked) * count
        kept = layer * shapes.layers
        if checkpointing:
            kept = layer + width * shapes.hidden * count * shapes.layers
        mask = rows * tokens * tokens * (1 + width) if masked else 0
        transient = memory.forward_bytes(shapes, section, self.dtype) * count
        unpacked = memory.dequantised_bytes(shapes, section, self.dtype)
        what = "activations, checkpointed" if checkpointing else "activations"
        return Part(
            "activations",
            f"{what}, {rows} x {tokens:,} tokens",
            (kept + mask + transient) * (1 + self.pieces) + unpacked,
        )

    def decoding(self, what: str, batch: int = 0) -> Part:
        """Labelling or sampling: the cache, and one forward pass without a graph."""
        shapes, section = self.shapes, self.recipe.model
        longest = section.max_length - self.prefix
        rows = batch or max(1, DECODE_TOKENS // longest)
        tokens = rows * longest
        cache = memory.cache_bytes(shapes, self.dtype, rows * section.max_length)
        # A layer's keys and values are concatenated anew with each chunk, and repeated to all heads.
        grown = 2 * memory.DTYPE_BYTES[self.dtype] * (shapes.keys + shapes.queries) * rows * section.max_length
        transient = memory.forward_bytes(shapes, section, self.dtype) * tokens
        return Part(
            "decoding",
            f"{what}: KV cache and pass, {rows} x {section.max_length:,} tokens",
            cache + grown + transient + memory.dequantised_bytes(shapes, section, self.dtype),
        )

    def logits(self, tokens: int, per_token: int, what: str) -> Part:
        return Part("logits", what, float(tokens) * self.shapes.vocab * per_token)

    def fixed(self) -> Part:
        return Part("other", "driver, kernels, process", self.overhead)


def _sft(s: _Sizes, batch: int) -> tuple[int, list[Part]]:
    section, tokens = s.recipe.sft, s.recipe.model.max_length
    width = memory.DTYPE_BYTES[s.dtype]
    answers = batch * s.answer
    return tokens, [
        s.base(), s.adapter("sft"), *s.trained("sft", section.optim),
        s.activations(batch, tokens, section.gradient_checkpointing),
        # In the compute dtype, then in fp32 as logits, log-probabilities and gradient.
        s.logits(answers, width + 12, f"logits at {answers:,} answer tokens"), s.decoding("validation"), s.fixed(),
    ]  # fmt: skip


def _reward(s: _Sizes, batch: int) -> tuple[int, list[Part]]:
    section, made = s.recipe.reward, s.recipe.preferences
    answers = 1 + made.num_samples + int(made.include_gold) + made.num_edits
    tokens = s.recipe.model.max_length + (answers - 1) * s.answer
    score = s.shapes.hidden
    return tokens, [
        s.base(head=False), s.adapter("reward", extra=score), *s.trained("reward", section.optim, extra=score),
        s.activations(batch, tokens, section.gradient_checkpointing, masked=True), s.fixed(),
    ]  # fmt: skip


def _ppo(s: _Sizes, batch: int) -> tuple[int, list[Part]]:
    section = s.recipe.ppo
    tokens = s.recipe.model.max_length + (section.num_samples - 1) * s.answer
    head = s.shapes.hidden + 1
    with_value = section.value_model == "adapter"
    value = [s.adapter("value", head)] if with_value else [Part("adapters", "value head", 4 * head, exact=True)]
    value += (
        s.trained("value", "adamw_torch", head)
        if with_value
        else [Part("optimizer", "gradients and states of the value head", 12 * head, exact=True)]
    )
    return tokens, [
        s.base(), s.adapter("policy"), s.adapter("ref"), s.adapter("reward"), *value,
        *s.trained("policy", "adamw_torch"),
        s.activations(batch, tokens, section.gradient_checkpointing, masked=True), s.decoding("rollouts"), s.fixed(),
    ]  # fmt: skip


def _dpo(s: _Sizes, batch: int) -> tuple[int, list[Part]]:
    section, tokens = s.recipe.dpo, s.recipe.model.max_length
    rows = 2 * batch
    # Each four times; under fp16's autocast in two bytes once, and in four (a copy) three times.
    width = 14 if s.dtype == "float16" else 4 * memory.DTYPE_BYTES[s.dtype]
    return tokens, [
        s.base(), s.adapter("policy"), s.adapter("ref"), *s.trained("policy", section.optim),
        s.activations(rows, tokens, section.gradient_checkpointing),
        # TRL computes them for the whole vocabulary at every token: the policy's, their log-probabilities, and the
        # gradient twice, of the shifted view and of the whole.
        s.logits(rows * tokens, width, f"logits at {rows * tokens:,} tokens"),
        s.decoding("validation"), s.fixed(),
    ]  # fmt: skip


def _label(s: _Sizes, batch: int) -> tuple[int, list[Part]]:
    return s.recipe.model.max_length, [s.base(), s.adapter("policy"), s.decoding("labelling", batch), s.fixed()]


_BILLS: dict[str, Callable[[_Sizes, int], tuple[int, list[Part]]]] = {
    "sft": _sft, "reward": _reward, "ppo": _ppo, "dpo": _dpo, "label": _label,
}  # fmt: skip


def plan_recipe(recipe: Recipe, card_gb: float | None = None) -> Plan:
    """Plan every stage of a recipe; no weight is loaded, nothing is downloaded.

    card_gb: nominal gigabytes of the card to plan for; default: this machine's card, else the card that the
    recipe is for, else this machine's memory.

    Raises:
        UserError: if the model's configuration is not on this machine and not a shipped recipe's.
    """
    where, limit, on_cpu = _room(recipe, card_gb)
    dtype = "bfloat16" if recipe.model.dtype == "auto" and not on_cpu else choose_dtype(recipe.model.dtype)[0]
    answer, prefix = _answer_tokens(recipe)
    overhead, pieces = (PROCESS_OVERHEAD, HEAP_PIECES) if on_cpu else (CUDA_OVERHEAD, 0.0)
    sizes = _Sizes(recipe, memory.shapes_of(recipe.model), dtype, answer, prefix, overhead, pieces)
    return Plan(recipe.name, where, limit, dtype, tuple(_stage(name, sizes, limit) for name in STAGES))


def _room(recipe: Recipe, card_gb: float | None) -> tuple[str, float, bool]:
    found = gpu_memory_gb()
    if card_gb is not None:
        return f"a card of {card_gb:g} GB", card_gb * NOMINAL * GIB, False
    if found is not None:
        return "this card", found * GIB, False
    if recipe.hardware.min_gpu_gb:
        return f"a card of {recipe.hardware.min_gpu_gb:g} GB", recipe.hardware.min_gpu_gb * NOMINAL * GIB, False
    return "this machine", float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), True


def _answer_tokens(recipe: Recipe) -> tuple[int, int]:
    """Tokens of the longest answer and of the prompt's fixed part: the tokenizer's own where it is at hand."""
    from pathlib import Path

    from lite_chex.decode.template import build_template
    from lite_chex.model.backbone import load_tokenizer
    from lite_chex.prompt import PromptEncoder

    if not Path(recipe.model.model_name_or_path).is_dir():
        return TOKENS_PER_FINDING * len(recipe.findings), PREFIX_TOKENS
    try:
        prompt = PromptEncoder(load_tokenizer(recipe.model.model_name_or_path), recipe.findings)
        return build_template(prompt).max_answer_length, len(prompt.prefix_ids)
    except UserError:
        return TOKENS_PER_FINDING * len(recipe.findings), PREFIX_TOKENS


def _batch(recipe: Recipe, name: str) -> int:
    return recipe.label.batch_size or 0 if name == "label" else getattr(recipe, name).per_device_train_batch_size


def _stage(name: str, sizes: _Sizes, limit: float) -> StagePlan:
    recipe, bill = sizes.recipe, _BILLS[name]

    def at(batch: int, length: int) -> StagePlan:
        model = recipe.model.model_copy(update={"max_length": length})
        tokens, parts = bill(replace(sizes, recipe=recipe.model_copy(update={"model": model})), batch)
        return StagePlan(name, batch, length, tokens, tuple(parts), limit)

    length = recipe.model.max_length
    batches = [b for b in (1, 2, 4, 8, 16, 32, 64) if at(b, length).fits]
    # Coarse steps: the estimate is no finer.
    lengths = [n for n in range(256, min(sizes.shapes.context, 8192) + 1, 256) if at(1, n).fits]
    return replace(
        at(_batch(recipe, name), length), largest_batch=max(batches, default=0), largest_length=max(lengths, default=0)
    )


def tables(plan: Plan, details: bool = False) -> list[Table]:
    """The plan as rich tables, 80 columns wide; details: one with every part."""
    from rich.table import Table

    def gib(value: float) -> str:
        return f"{value / GIB:.2f}" if value else "-"

    columns = ("base", "adapters", "optimizer", "activations", "logits", "decoding")
    heads = ("base", "adapt.", "optim.", "activ.", "logits", "decode")
    bill = Table("stage", *heads, "total", "", title=f"{plan.recipe}: GiB on {plan.where} ({plan.limit / GIB:.1f})")
    room = Table("stage", "batch", "tokens a row", "largest batch", "largest max_length", title="what would fit")
    for stage in plan.stages:
        verdict = "[green]fits[/]" if stage.fits else "[bold red]too big[/]"
        bill.add_row(stage.name, *(gib(stage.group(c)) for c in columns), gib(stage.total), verdict)
        room.add_row(
            stage.name,
            str(stage.batch or "auto"),
            f"{stage.tokens:,}",
            str(stage.largest_batch or "none"),
            f"{stage.largest_length:,} at batch 1" if stage.largest_length else "none",
        )
    made = [bill, room]
    if details:
        every = Table("stage", "part", "GiB", "", title="every part")
        for stage in plan.stages:
            for i, part in enumerate(stage.parts):
                every.add_row(
                    "" if i else stage.name, part.name, f"{part.bytes / GIB:.3f}", "exact" if part.exact else "estimate"
                )
            every.add_section()
        made.append(every)
    return made
