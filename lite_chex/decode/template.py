"""The answer as a template: forced spans with one decision per finding.

Every label vector gives one canonical JSON text. Tokenised as a whole, it is cut at the token where the
four certainties start to differ: that token is the decision, everything else follows from it. Cutting
the tokenizer's own output (instead of gluing pieces) keeps training and decoding on the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.errors import UserError
from lite_chex.findings import CERTAINTY_WORDS, FindingSet, LabelArray
from lite_chex.prompt import PromptEncoder, render

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class AnswerTemplate:
    """Token ids of every possible answer.

    head: forced tokens before the first decision.
    tails[i][v]: tokens from decision i (its first token is the decision's candidate v) up to the next
        decision, or to the end-of-turn token.
    candidates: int64 ``[findings, 4]``, first tokens of ``tails``.
    """

    findings: FindingSet
    head: tuple[int, ...]
    tails: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def candidates(self) -> np.ndarray:
        return np.array([[tail[0] for tail in finding] for finding in self.tails], dtype=np.int64)

    def answer_ids(self, labels: LabelArray | Sequence[int]) -> list[int]:
        """The whole answer, end-of-turn token included."""
        ids = list(self.head)
        for finding, value in zip(self.tails, labels, strict=True):
            ids.extend(finding[int(value)])
        return ids

    def decision_positions(self, labels: LabelArray | Sequence[int]) -> list[int]:
        """Index in :meth:`answer_ids` of each decision's token (it is predicted one position earlier)."""
        positions, at = [], len(self.head)
        for finding, value in zip(self.tails, labels, strict=True):
            positions.append(at)
            at += len(finding[int(value)])
        return positions

    @property
    def max_answer_length(self) -> int:
        return len(self.head) + sum(max(len(t) for t in finding) for finding in self.tails)


def build_template(prompt: PromptEncoder) -> AnswerTemplate:
    """Cut the tokenizer's own output into forced spans and decisions.

    Raises:
        UserError: if two certainties start with the same token, or if the tokens of one finding depend
            on the certainty of another (no tokenizer of a supported model does either).
    """
    tokenizer, findings = prompt.tokenizer, prompt.findings
    context = len(prompt.after_ids)
    lead, end_ids = _around_answer(prompt)

    def encode(labels: Sequence[int]) -> tuple[list[int], list[int]]:
        """Answer tokens without the end, and the index of each decision token."""
        text = prompt.generation_text + lead + findings.to_json(labels)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        if ids[:context] != prompt.after_ids:
            raise UserError("the chat template's last prompt token merges with the answer: this model is not supported")
        starts, at = [], len(prompt.generation_text) + len(lead) + 1
        for name, value in zip(findings.names, labels, strict=True):
            at = text.index(f'"{name}":"', at - 1) + len(name) + 4
            starts.append(at)
            at += len(CERTAINTY_WORDS[value])
        index = [next(i for i, (a, b) in enumerate(offsets) if a <= s < b) - context for s in starts]
        return ids[context:], index

    uniform = [encode([v] * len(findings)) for v in range(4)]
    heads = {tuple(ids[: index[0]]) for ids, index in uniform}
    tails = []
    for i in range(len(findings)):
        row = []
        for ids, index in uniform:
            stop = index[i + 1] if i + 1 < len(findings) else None
            row.append(tuple(ids[index[i] : stop]) + (tuple(end_ids) if stop is None else ()))
        if not all(row) or len({tail[0] for tail in row}) != 4:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} starts two certainties with the same token: "
                "the decision decoder needs four different first tokens"
            )
        tails.append(tuple(row))
    template = AnswerTemplate(findings, next(iter(heads)), tuple(tails))
    rng = np.random.default_rng(0)
    for _ in range(16):
        labels = rng.integers(0, 4, len(findings)).tolist()
        if len(heads) != 1 or template.answer_ids(labels) != encode(labels)[0] + end_ids:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} merges tokens across findings: this model is not supported"
            )
    return template


def _around_answer(prompt: PromptEncoder) -> tuple[str, list[int]]:
    """Text the chat template puts before the answer, and the ids that end the assistant's turn."""
    tokenizer = prompt.tokenizer
    mark = "@@ANSWER@@"
    user = {"role": "user", "content": "x"}
    opened = render(tokenizer, [user], add_generation_prompt=True)
    whole = render(tokenizer, [user, {"role": "assistant", "content": mark}])
    lead, _, end = whole[len(opened) :].partition(mark) if whole.startswith(opened) else ("", "", "")
    end_ids = list(tokenizer(end.strip(), add_special_tokens=False)["input_ids"])[:1] if end.strip() else []
    special = set(tokenizer.all_special_ids)
    if not end_ids or end_ids[0] not in special:
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no end token")
        end_ids = [tokenizer.eos_token_id]
    return lead, end_ids
