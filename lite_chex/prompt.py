"""Instruction + report -> token ids of the prompt, through the model's own chat template.

What differs from the textbook: the report never passes through the template engine or the special-token
parser. The template is rendered once around a placeholder and cut there; the report's text is tokenised
on its own with special tokens split, so ``<|im_end|>`` in a report is eight characters of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lite_chex.errors import UserError
from lite_chex.findings import FindingSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACEHOLDER = "@@REPORT@@"


def instruction(findings: FindingSet) -> str:
    """What the model is asked to do. The answer's keys are forced, so the findings need no list here."""
    return (
        "Label this chest X-ray report. For each finding answer positive, negative, uncertain or absent "
        "(not mentioned), as one JSON object."
    )


def user_message(findings: FindingSet, report: str) -> str:
    """The user turn as text (also the ``prompt`` of a preference row)."""
    return f"{instruction(findings)}\n\nReport:\n{report}"


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], add_generation_prompt: bool = False
) -> str:
    """The chat template's text of some messages."""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))


@dataclass(frozen=True)
class PromptEncoder:
    """Turns reports into prompt token ids for one tokenizer and finding set."""

    tokenizer: PreTrainedTokenizerBase
    findings: FindingSet

    @cached_property
    def _rendered(self) -> tuple[str, str]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} has no chat template: use an instruction-tuned model"
            )
        messages = [{"role": "user", "content": user_message(self.findings, _PLACEHOLDER)}]
        text = render(self.tokenizer, messages, add_generation_prompt=True)
        before, _, after = text.partition(_PLACEHOLDER)
        return before, after

    @cached_property
    def prefix_ids(self) -> list[int]:
        """Tokens before the report: the same for every report, so their KV cache is shared."""
        return self._ids(self._rendered[0])

    @cached_property
    def after_ids(self) -> list[int]:
        """Tokens between the report and the answer."""
        return self._ids(self._rendered[1])

    @property
    def generation_text(self) -> str:
        """The rendered text after the report, up to where the answer starts."""
        return self._rendered[1]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def report_ids(self, reports: Sequence[str]) -> list[list[int]]:
        """Token ids of report texts; control tokens in them are text."""
        if not reports:
            return []
        encoded = self.tokenizer(list(reports), add_special_tokens=False, split_special_tokens=True)
        return [list(ids) for ids in encoded["input_ids"]]

    def body_ids(self, reports: Sequence[str]) -> list[list[int]]:
        """Everything after the shared prefix and before the answer."""
        return [ids + self.after_ids for ids in self.report_ids(reports)]

    def prompt_ids(self, reports: Sequence[str]) -> list[list[int]]:
        """Whole prompts."""
        return [self.prefix_ids + ids for ids in self.body_ids(reports)]


def report_of(prompt: str) -> str:
    """The report in a ``prompt`` that :func:`user_message` made (whatever the instruction of its time said).

    Raises:
        ValueError: if the text is no such prompt.
    """
    _, mark, report = prompt.partition("\n\nReport:\n")
    if not mark:
        raise ValueError("the prompt has no report (it must hold a line 'Report:' before it)")
    return report
