"""The decision decoder: label a batch of reports at about the price of one forward pass.

A draft of the whole answer goes through the model in one pass. Every decision up to the first one where
the model disagrees with the draft is final, and so is the model's own choice there (its prefix was right).
The rest is redrafted from the choices the model made under the old draft, and only the rows and the
suffix that disagreed run again. The result is that of the exact baseline (:meth:`DecisionDecoder.stepwise`):
where rounding could make a difference, at near ties in half precision, the baseline itself decides. With
Gumbel noise added to the logits the same loop samples exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lite_chex.decode import decisions
from lite_chex.decode.batch_cache import BatchCache, Count, WholeRows
from lite_chex.findings import Certainty, LabelArray

if TYPE_CHECKING:
    import torch

    from lite_chex.decode.template import AnswerTemplate
    from lite_chex.model.backbone import Backbone


@dataclass(frozen=True)
class Decoded:
    """values: int8 ``[n, T]``; logits: fp32 ``[n, T, 4]``, each made under the final prefix; passes: mean
    number of forward passes a report took part in; padding: share of padded slots among all that went through
    the model; ties: reports with a near tie, which the exact baseline decided."""

    values: LabelArray
    logits: npt.NDArray[np.float32]
    passes: float
    padding: float = 0.0
    ties: int = 0


BATCH_TOKENS = 4096
"""Padded tokens per forward pass, where nobody chose another number (see :mod:`lite_chex.decode.budget`): matrix
products of this size keep a machine busy, and a 7B model on 4 bits needs less than 8 GB for them by the plan."""

MAX_PADDING = 0.04
"""Of a batch that is cut by tokens; forced spans of different length come on top."""

TIE_TOLERANCE: dict[str, float] = {"bfloat16": 0.25, "float16": 0.03}
"""Margin in logits below which rounding could change a label, where it differs between the passes at all. Measured
with SmolLM2 and an SFT adapter in bf16 before block_cache, 32 reports, 396 decisions: between the verify pass and the
baseline the margin of the best over the second candidate changed by up to 0.23 where it was below 2 (0.38 above;
1 label flipped, at 0.09). float16 has three more bits."""

SAME_BITS = 1e-3
"""Tolerance where the passes agree to the bit and only the projection in fp32 rounds (see block_cache)."""


class DecisionDecoder:
    """Decodes the decisions of reports with one model, prompt prefix and answer template.

    Call :meth:`refresh` after the model's weights changed: the prefix's KV cache is kept between calls.
    """

    def __init__(
        self, backbone: Backbone, template: AnswerTemplate, prefix_ids: Sequence[int], batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self.backbone = backbone
        self.template = template
        self.findings = template.findings
        self.prefix_ids = list(prefix_ids)
        self.batch_tokens = batch_tokens
        self._tie_tolerance: float | None = None
        self._weight: torch.Tensor | None = None
        self._prefix_cache: Any = None

    def refresh(self) -> None:
        """Forget what depends on the model's weights."""
        self._weight = self._prefix_cache = None

    @property
    def tie_tolerance(self) -> float:
        """A greedy decision won by less than this is left to the exact baseline; 0 (fp32) never asks it.

        By dtype, and measured when it is first needed: whether this machine's kernels give a token the same bits in
        one pass and in many cannot be known beforehand.
        """
        if self._tie_tolerance is None:
            usual = TIE_TOLERANCE.get(str(self.backbone.causal.dtype).removeprefix("torch."), 0.0)
            differs = self._rounding() if usual else 0.0
            self._tie_tolerance = max(usual, 1.5 * differs) if differs >= SAME_BITS / 2 else min(usual, SAME_BITS)
        return self._tie_tolerance

    @tie_tolerance.setter
    def tie_tolerance(self, value: float) -> None:
        self._tie_tolerance = value

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Without gradients and in evaluation mode: in training mode gradient checkpointing drops the KV cache."""
        import torch

        causal = self.backbone.causal
        training = causal.training
        causal.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            causal.train(training)

    def majority_draft(self, n: int) -> LabelArray:
        """All findings absent: the draft when nothing better is known."""
        return np.full((n, len(self.findings)), Certainty.ABSENT, dtype=np.int8)

    def decode(
        self,
        bodies: Sequence[Sequence[int]],
        drafts: LabelArray | None = None,
        *,
        noise: npt.NDArray[np.float32] | None = None,
        temperature: float = 1.0,
        batch_size: int | None = None,
        settle: bool = True,
    ) -> Decoded:
        """Decode prompts (without the shared prefix), in order.

        drafts: int8 ``[n, T]``; any draft gives the same result, a good one is faster. noise: Gumbel noise
        ``[n, T, 4]`` for sampling at ``temperature``; None decodes greedily. settle: leave near ties of greedy
        decisions to the exact baseline; a validation during training does without.
        """

        n = len(bodies)
        drafts = self.majority_draft(n) if drafts is None else self.findings.consistent(drafts)
        values = np.empty((n, len(self.findings)), dtype=np.int8)
        logits = np.empty((n, len(self.findings), 4), dtype=np.float32)
        run = Count()
        with self.inference():
            for rows in self.batches([len(b) for b in bodies], batch_size):
                values[rows], logits[rows] = self._verify(
                    [bodies[i] for i in rows], drafts[rows], None if noise is None else noise[rows], temperature, run
                )
            ties = self._settle(bodies, values, logits, run) if settle and noise is None else 0
        return Decoded(values, logits, run.rows / max(n, 1), run.padding, ties)

    def batches(self, lengths: Sequence[int], batch_size: int | None = None) -> Iterator[list[int]]:
        """Rows of similar length together: at most ``batch_size`` rows; or else ``batch_tokens`` padded tokens, of
        which ``MAX_PADDING`` are padding."""
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        answer = self.template.max_answer_length
        batch: list[int] = []
        tokens = 0
        for i in order:
            width = lengths[i] + answer
            slots = (len(batch) + 1) * width
            if batch_size:
                full = len(batch) >= batch_size
            else:
                full = slots > self.batch_tokens or slots - (tokens + width) > MAX_PADDING * slots
            if batch and full:
                yield batch
                batch, tokens = [], 0
            batch.append(i)
            tokens += width
        if batch:
            yield batch

    def stepwise(self, bodies: Sequence[Sequence[int]], *, batch_size: int = 1) -> Decoded:
        """The exact baseline: one forward pass per decision, forced spans appended to the KV cache."""

        n, findings = len(bodies), self.findings
        values = np.empty((n, len(findings)), dtype=np.int8)
        logits = np.empty((n, len(findings), 4), dtype=np.float32)
        run = Count()
        with self.inference():
            for rows in self.batches([len(b) for b in bodies], batch_size):
                for t, step, value in self._steps([bodies[i] for i in rows], run):
                    values[rows, t], logits[rows, t] = value, step
        return Decoded(values, logits, float(len(findings)), run.padding)

    def _steps(
        self, bodies: Sequence[Sequence[int]], run: Count
    ) -> Iterator[tuple[int, npt.NDArray[np.float32], LabelArray]]:
        """One batch, decision by decision: its number, logits ``[rows, 4]`` and choices ``[rows]``."""
        import torch

        state = self._batch(len(bodies), run)
        chunks = [[*body, *self.template.head] for body in bodies]
        seen = torch.zeros((len(bodies), len(self.findings), 4))
        for t in range(len(self.findings)):
            seen[:, t] = torch.einsum("bh,ch->bc", state.append(chunks), self.weight[t]).cpu()
            value = decisions.choose(seen, self.findings)[:, t].numpy().astype(np.int8)
            yield t, seen[:, t].numpy(), value
            chunks = [list(self.template.tails[t][v]) for v in value.tolist()]

    def _rounding(self, lengths: Sequence[int] = (9, 130), decided: int = 5) -> float:
        """The largest difference of a logit between the verify pass and the baseline, on random prompts."""
        rng = np.random.default_rng(0)
        vocabulary = self.backbone.causal.config.vocab_size
        bodies = [rng.integers(0, vocabulary, n).tolist() for n in lengths]
        values, logits = self._verify(bodies, self.majority_draft(len(bodies)), None, 1.0, Count())
        largest = 0.0
        for i, body in enumerate(bodies):
            for t, step, value in self._steps([body], Count()):
                largest = max(largest, float(np.abs(step[0] - logits[i, t]).max()))
                if value[0] != values[i, t] or t + 1 == decided:
                    break
        return largest

    def _settle(
        self, bodies: Sequence[Sequence[int]], values: LabelArray, logits: npt.NDArray[np.float32], run: Count
    ) -> int:
        """Leave reports with a near tie to the exact baseline at batch size 1 (in place); returns how many.

        A report's baseline ends after its last near tie when all its labels were confirmed up to there: the
        rest was decided under the same prefix, by more than rounding.
        """
        import torch

        if not self.tie_tolerance:
            return 0
        margin = decisions.margins(torch.from_numpy(logits), torch.from_numpy(values).long(), self.findings).numpy()
        near = margin < self.tie_tolerance
        reports = np.flatnonzero(near.any(axis=1))
        for i in reports.tolist():
            last, confirmed = int(np.flatnonzero(near[i])[-1]), True
            for t, step, value in self._steps([bodies[i]], run):
                confirmed &= bool(value[0] == values[i, t])
                values[i, t], logits[i, t] = value[0], step[0]
                if confirmed and t >= last:
                    break
        return len(reports)

    @property
    def weight(self) -> torch.Tensor:
        """Output head rows of the candidates, fp32 ``[T, 4, hidden]``."""
        import torch

        if self._weight is None:
            # A tensor made in inference mode could not be used in a training step later.
            with torch.inference_mode(False), torch.no_grad():
                self._weight = self.backbone.candidate_weight(self.template.candidates)
        return self._weight

    def prefix_cache(self, rows: int) -> Any:
        """The prefix's KV cache, computed once, repeated for a batch."""
        import torch
        from transformers import DynamicCache

        if self._prefix_cache is None:
            cache = DynamicCache(config=self.backbone.causal.config)
            if self.prefix_ids:
                ids = torch.tensor([self.prefix_ids], device=self.backbone.device)
                with torch.inference_mode():
                    self.backbone.trunk(input_ids=ids, past_key_values=cache, use_cache=True)
            self._prefix_cache = cache
        cache = copy.deepcopy(self._prefix_cache)
        if self.prefix_ids:
            cache.batch_repeat_interleave(rows)
        return cache

    def _batch(self, rows: int, run: Count) -> BatchCache | WholeRows:
        return (BatchCache if self.backbone.takes_cache else WholeRows)(self, rows, run)

    def _sequence(self, body: Sequence[int], labels: LabelArray) -> tuple[list[int], list[int]]:
        """Prompt and answer up to the last decision, and the places of the tokens that predict the decisions."""
        ids = [*body, *self.template.head]
        where = [len(ids) - 1]
        for tails, value in zip(self.template.tails[:-1], labels.tolist()):
            ids += tails[value]
            where.append(len(ids) - 1)
        return ids, where

    def _verify(
        self,
        bodies: Sequence[Sequence[int]],
        draft: LabelArray,
        noise: npt.NDArray[np.float32] | None,
        temperature: float,
        run: Count,
    ) -> tuple[LabelArray, npt.NDArray[np.float32]]:
        """Draft and verify one batch: values and logits."""
        import torch

        findings = self.findings
        count, steps = len(bodies), len(findings)
        state = self._batch(count, run)
        draft = draft.copy()
        logits = torch.zeros((count, steps, 4))
        gumbel = None if noise is None else torch.from_numpy(noise)
        active = np.arange(count)
        start = np.zeros(count, dtype=np.int64)  # first decision that is not final yet, per active row
        while len(active):
            # Every row goes on from the same slot: rows of like length stay so, and their cache has no holes.
            cut = state.width - len(self.prefix_ids)
            chunks, predict = [], []
            for row in active.tolist():
                ids, where = self._sequence(bodies[row], draft[row])
                chunks.append(ids[cut:])
                predict.append([max(w - cut, 0) for w in where])
            hidden = state.append_all(chunks, torch.tensor(predict))
            step = torch.einsum("bth,tch->btc", hidden, self.weight).cpu()
            index = torch.from_numpy(active)
            fresh = torch.arange(steps)[None, :, None] >= torch.from_numpy(start)[:, None, None]
            logits[index] = torch.where(fresh, step, logits[index])
            scores = logits[index] / temperature
            if gumbel is not None:
                scores = scores + gumbel[index]
            choice = decisions.choose(scores, findings).numpy().astype(np.int8)
            wrong = choice != draft[active]
            first_wrong = np.where(wrong.any(axis=1), wrong.argmax(axis=1), steps - 1)
            # Final up to and including the first disagreement; the rest is the model's own redraft.
            draft[active] = choice
            again = np.flatnonzero(first_wrong < steps - 1)
            if len(again):
                state.keep(again, int(np.array(predict)[again, first_wrong[again]].min()))
            active, start = active[again], first_wrong[again] + 1
        return draft, logits.numpy()
