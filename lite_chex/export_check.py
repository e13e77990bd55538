"""Does an exported model say what the adapter said? Decoding freely with transformers, and constrained."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.errors import UserError
from lite_chex.findings import FindingSet, LabelArray
from lite_chex.prompt import PromptEncoder, user_message

if TYPE_CHECKING:
    from lite_chex.export import Exported
    from lite_chex.recipe import Recipe

SPARE_TOKENS = 16


@dataclass(frozen=True)
class CheckResult:
    """Agreement on ``n`` reports. readable: free answers that are one whole JSON object. free_same: of the readable
    ones, those whose every label is the adapter's; constrained_same: of all. cells: labels that differ.
    worst_margin: by how many nats the adapter preferred its own label where the constrained export first left it; what
    rounding turns is a near-tie. prompts_differ: prompts that a chat endpoint splits otherwise than in training."""

    source: str
    n: int
    readable: int
    free_same: int
    free_cells: int
    constrained_same: int
    constrained_cells: int
    worst_margin: float
    prompts_differ: int

    @property
    def identical(self) -> bool:
        return self.readable == self.free_same == self.constrained_same == self.n


def check_export(exported: Exported, recipe: Recipe, limit: int = 50, batch_size: int = 8) -> CheckResult:
    """Label a recipe's test reports with the adapter, and with the export freely and constrained.

    Both use the decoder's own prompts. In 16 bits near-ties may fall the other way: a few differing cells are
    rounding, many are a mistake.

    Raises:
        UserError: if the recipe has no test source, or its findings are not the model's.
    """
    if not recipe.data.test:
        raise UserError(f"--check {recipe.name}: the recipe names no test source")
    if recipe.findings.names != exported.recipe.findings.names:
        raise UserError(f"--check {recipe.name}: its findings are not those that the model was trained on")
    from lite_chex.model.backbone import load_tokenizer
    from lite_chex.train.examples import load_source

    examples = load_source(recipe.data.test[0], recipe)
    texts, adapter, probabilities = _adapter_labels(exported.stage, examples.texts[:limit])
    gc.collect()  # the adapter's base leaves the card before the export comes
    free, constrained = _export_labels(exported.folder, exported.recipe, texts, batch_size)
    readable = [i for i, answer in enumerate(free) if answer is not None]
    differs = [int((free[i] != adapter[i]).sum()) for i in readable]
    constrained_differs = (constrained != adapter).sum(axis=1)
    return CheckResult(
        examples.source,
        len(texts),
        len(readable),
        sum(d == 0 for d in differs),
        sum(differs),
        int((constrained_differs == 0).sum()),
        int(constrained_differs.sum()),
        worst_margin(adapter, constrained, probabilities),
        prompts_that_differ(PromptEncoder(load_tokenizer(str(exported.folder)), exported.recipe.findings), texts),
    )


def prompts_that_differ(prompt: PromptEncoder, texts: Sequence[str]) -> int:
    """Reports whose prompt is another where the chat template is tokenised as a whole, as servers do it: in training
    the report is tokenised alone. SentencePiece may put a space before its first word, and control tokens count."""
    messages = [[{"role": "user", "content": user_message(prompt.findings, text)}] for text in texts]
    served = prompt.tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    return sum(list(theirs) != ours for theirs, ours in zip(served, prompt.prompt_ids(texts), strict=True))


def worst_margin(adapter: LabelArray, export: LabelArray, probabilities: np.ndarray) -> float:
    """By how many nats the adapter preferred its own label where an export first left it, at most: ``[n, F]`` twice,
    the adapter's probabilities ``[n, F, 4]``; 0 where none differs."""
    worst = 0.0
    for i in np.flatnonzero((adapter != export).any(axis=1)):
        cell = int((export[i] != adapter[i]).argmax())  # later cells were decided under another prefix
        log_p = np.log(np.maximum(probabilities[i, cell], 1e-30))
        worst = max(worst, float(log_p[adapter[i, cell]] - log_p[export[i, cell]]))
    return worst


def _adapter_labels(stage: Path, texts: Sequence[str]) -> tuple[list[str], LabelArray, np.ndarray]:
    """The reports that the adapter can read whole, its labels, and their probabilities ``[n, findings, 4]``."""
    from lite_chex.labelers.llm import LLMLabeler

    labeler = LLMLabeler.load(stage, merge=False)
    batch = labeler.label(texts)
    fine = [i for i, error in enumerate(batch.errors or [None] * len(texts)) if error is None]
    if not fine:
        raise UserError("--check: every test report is longer than the model's context")
    assert batch.probabilities is not None
    return [texts[i] for i in fine], batch.values[fine], batch.probabilities[fine]


def _export_labels(
    folder: Path, recipe: Recipe, texts: list[str], batch_size: int
) -> tuple[list[LabelArray | None], LabelArray]:
    """Free and constrained labels of the exported model, on the card if it fits there, else on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    from lite_chex.decode.decoder import DecisionDecoder
    from lite_chex.decode.template import build_template
    from lite_chex.model.backbone import Backbone, load_tokenizer

    tokenizer = load_tokenizer(str(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True, local_files_only=True)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info(0)[0] > 1.3 * size:
            model = model.to("cuda")
    model.eval()
    prompt = PromptEncoder(tokenizer, recipe.findings)
    template = build_template(prompt)
    decoder = DecisionDecoder(Backbone(model, tokenizer, str(folder)), template, prompt.prefix_ids)
    constrained = decoder.decode(prompt.body_ids(texts), batch_size=batch_size).values
    room = template.max_answer_length + SPARE_TOKENS
    free: list[LabelArray | None] = []
    prompts = prompt.prompt_ids(texts)
    for start in range(0, len(prompts), batch_size):
        answers = generate(model, tokenizer, prompts[start : start + batch_size], room)
        free += [read_answer(text, recipe.findings) for text in answers]
    return free, constrained


def generate(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[str]:
    """Greedy answers as text, by transformers' own generate; prompts are padded on the left."""
    import torch

    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=pad
        )
    return [str(t) for t in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


def read_answer(text: str, findings: FindingSet) -> LabelArray | None:
    """Labels of a free answer, None where it is not readable; an empty thought before it (Qwen3) is not part of it."""
    found = findings.from_json(text.rpartition("</think>")[2].strip())
    return None if found is None else np.asarray(found)
