"""Everything a stage needs besides its trainer: tokenizer, prompts, template, decoder, validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.decode.decoder import DecisionDecoder, Decoded
from lite_chex.decode.template import AnswerTemplate, build_template
from lite_chex.errors import UserError
from lite_chex.findings import LabelArray
from lite_chex.prompt import PromptEncoder
from lite_chex.train.examples import Examples, rule_labels

if TYPE_CHECKING:
    from lite_chex.model.backbone import Backbone
    from lite_chex.recipe import Recipe


@dataclass
class Setup:
    """A backbone with the recipe's prompts, answer template and decoder."""

    recipe: Recipe
    backbone: Backbone

    @cached_property
    def prompt(self) -> PromptEncoder:
        return PromptEncoder(self.backbone.tokenizer, self.recipe.findings)

    @cached_property
    def template(self) -> AnswerTemplate:
        return build_template(self.prompt)

    @cached_property
    def decoder(self) -> DecisionDecoder:
        return DecisionDecoder(self.backbone, self.template, self.prompt.prefix_ids)

    def within_length(self, examples: Examples) -> tuple[Examples, int]:
        """Leave out reports whose prompt and answer exceed ``model.max_length`` (never cut silently)."""
        room = self.recipe.model.max_length - len(self.prompt.prefix_ids) - self.template.max_answer_length
        lengths = [len(b) for b in self.prompt.body_ids(examples.texts)]
        rows = [i for i, n in enumerate(lengths) if n <= room]
        if not rows:
            raise UserError(f"model.max_length: no report fits in {self.recipe.model.max_length} tokens")
        return examples.subset(rows), len(examples) - len(rows)

    def greedy(self, texts: Sequence[str], drafts: LabelArray | None = None) -> Decoded:
        if drafts is None and self.recipe.label.draft == "rules":
            drafts = rule_labels(texts, self.recipe)
        self.decoder.refresh()
        return self.decoder.decode(self.prompt.body_ids(texts), drafts)


@dataclass
class Validation:
    """Reports with labels on which a stage is watched and its checkpoint chosen.

    parts: each scored by its own kind (four certainties, presence codes). The first gives the F1s; errors per
    report are over all of them.
    """

    setup: Setup
    parts: Sequence[Examples]

    def __post_init__(self) -> None:
        self.parts = [self.setup.within_length(part)[0] for part in self.parts]
        texts = [text for part in self.parts for text in part.texts]
        self._bodies = self.setup.prompt.body_ids(texts)
        # Each validation starts from the last one's labels: late in training they are nearly right.
        self._draft = rule_labels(texts, self.setup.recipe)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def decode(self) -> Decoded:
        self.setup.decoder.refresh()
        decoded = self.setup.decoder.decode(self._bodies, self._draft, settle=False)
        self._draft = decoded.values
        return decoded

    def measure(self) -> dict[str, float]:
        """Scores of the current model; the label source is in ``source``."""
        from lite_chex.evaluate.evaluation import score

        values, start, found = self.decode().values, 0, []
        for part in self.parts:
            rows = slice(start, start + len(part))
            found.append(score(part.labels, values[rows], self.setup.recipe.findings, part.protocol))
            start = rows.stop
        errors = sum(f.errors_per_report * len(part) for f, part in zip(found, self.parts, strict=True))
        metrics: dict[str, Any] = {"macro_f1": found[0].macro_f1, "errors_per_report": errors / len(self)}
        metrics |= {f"f1_{k}": v for k, v in found[0].per_certainty.items()}
        if len(found) > 1:
            metrics |= {f"errors_per_report_{p.protocol}": f.errors_per_report for f, p in zip(found, self.parts)}
        return {k: v for k, v in metrics.items() if v is not None}

    @property
    def source(self) -> str:
        return "; ".join(part.source for part in self.parts)


def gumbel(shape: tuple[int, ...], *seed: int) -> np.ndarray:
    """Standard Gumbel noise, float32, from a seed path: sampling that does not depend on what ran before."""
    return np.random.default_rng(list(seed)).gumbel(size=shape).astype(np.float32)
