"""The decision decoder: label a batch of reports at about the price of one forward pass.

A draft of the whole answer goes through the model in one pass. Every decision up to the first one where
the model disagrees with the draft is final, and so is the model's own choice there (its prefix was right).
The rest is redrafted from the choices the model made under the old draft, and only the rows and the
suffix that disagreed run again. The result is that of the exact baseline (:meth:`DecisionDecoder.stepwise`);
with Gumbel noise added to the logits the same loop samples exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lite_chex.decode import decisions
from lite_chex.findings import Certainty, LabelArray

if TYPE_CHECKING:
    import torch

    from lite_chex.decode.template import AnswerTemplate
    from lite_chex.model.backbone import Backbone


@dataclass(frozen=True)
class Decoded:
    """values: int8 ``[n, T]``; logits: fp32 ``[n, T, 4]``, each made under the final prefix; passes: mean
    number of forward passes a report took part in."""

    values: LabelArray
    logits: npt.NDArray[np.float32]
    passes: float


class DecisionDecoder:
    """Decodes the decisions of reports with one model, prompt prefix and answer template.

    Call :meth:`refresh` after the model's weights changed: the prefix's KV cache is kept between calls.
    """

    def __init__(
        self, backbone: Backbone, template: AnswerTemplate, prefix_ids: Sequence[int], batch_tokens: int = 4096
    ) -> None:
        self.backbone = backbone
        self.template = template
        self.findings = template.findings
        self.prefix_ids = list(prefix_ids)
        self.batch_tokens = batch_tokens
        self._weight: torch.Tensor | None = None
        self._prefix_cache: Any = None

    def refresh(self) -> None:
        """Forget what depends on the model's weights."""
        self._weight = self._prefix_cache = None

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
    ) -> Decoded:
        """Decode prompts (without the shared prefix), in order.

        drafts: int8 ``[n, T]``; any draft gives the same result, a good one is faster. noise: Gumbel noise
        ``[n, T, 4]`` for sampling at ``temperature``; None decodes greedily.
        """
        import torch

        n = len(bodies)
        drafts = self.majority_draft(n) if drafts is None else self.findings.consistent(drafts)
        values = np.empty((n, len(self.findings)), dtype=np.int8)
        logits = np.empty((n, len(self.findings), 4), dtype=np.float32)
        passes = 0
        for rows in self.batches([len(b) for b in bodies], batch_size):
            with torch.inference_mode():
                v, x, p = self._verify(
                    [bodies[i] for i in rows], drafts[rows], None if noise is None else noise[rows], temperature
                )
            values[rows], logits[rows] = v, x
            passes += p
        return Decoded(values, logits, passes / max(n, 1))

    def batches(self, lengths: Sequence[int], batch_size: int | None = None) -> Iterator[list[int]]:
        """Rows of similar length together: at most ``batch_size`` rows, or ``batch_tokens`` padded tokens."""
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        answer = self.template.max_answer_length
        batch: list[int] = []
        for i in order:
            full = (
                len(batch) >= batch_size if batch_size else (len(batch) + 1) * (lengths[i] + answer) > self.batch_tokens
            )
            if batch and full:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def stepwise(self, bodies: Sequence[Sequence[int]], *, batch_size: int = 1) -> Decoded:
        """The exact baseline: one forward pass per decision, forced spans appended to the KV cache."""
        import torch

        n, findings = len(bodies), self.findings
        values = np.empty((n, len(findings)), dtype=np.int8)
        logits = np.empty((n, len(findings), 4), dtype=np.float32)
        for rows in self.batches([len(b) for b in bodies], batch_size):
            with torch.inference_mode():
                state = _Cached(self, len(rows))
                chunks = [[*bodies[i], *self.template.head] for i in rows]
                for t in range(len(findings)):
                    hidden = state.append(chunks)
                    step = torch.einsum("bh,ch->bc", hidden, self.weight[t])
                    logits[rows, t] = step.cpu().numpy()
                    partial = torch.full((len(rows), len(findings), 4), 0.0)
                    partial[:, : t + 1] = torch.from_numpy(logits[rows, : t + 1])
                    values[rows, t] = decisions.choose(partial, findings)[:, t].numpy()
                    chunks = [list(self.template.tails[t][values[i, t]]) for i in rows]
        return Decoded(values, logits, float(len(findings)))

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

    def _verify(
        self,
        bodies: Sequence[Sequence[int]],
        draft: LabelArray,
        noise: npt.NDArray[np.float32] | None,
        temperature: float,
    ) -> tuple[LabelArray, npt.NDArray[np.float32], int]:
        """Draft and verify one batch; returns values, logits and the rows summed over passes."""
        import torch

        template, findings = self.template, self.findings
        count, steps = len(bodies), len(findings)
        state = _Cached(self, count)
        draft = draft.copy()
        logits = torch.zeros((count, steps, 4))
        gumbel = None if noise is None else torch.from_numpy(noise)
        active = np.arange(count)
        start = np.zeros(count, dtype=np.int64)  # first decision that is not final yet, per active row
        passes = 0
        while len(active):
            passes += len(active)
            chunks, predict = [], []
            for row, first in zip(active.tolist(), start.tolist()):
                if first == 0:
                    chunk = [*bodies[row], *template.head]
                    where = [len(chunk) - 1]
                else:
                    chunk = list(template.tails[first - 1][draft[row, first - 1]])
                    where = [0] * first + [len(chunk) - 1]
                for t in range(first, steps - 1):
                    chunk += template.tails[t][draft[row, t]]
                    where.append(len(chunk) - 1)
                chunks.append(chunk)
                predict.append(where)
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
            state.keep(again, np.array(predict)[again, first_wrong[again]])
            active, start = active[again], first_wrong[again] + 1
        return draft, logits.numpy(), passes


class _Cached:
    """A batch's KV cache in which rows may hold stale or padded slots, masked per row.

    ``valid``: bool ``[rows, slots]``; ``position``: int64 ``[rows]``, the next token's position.
    """

    def __init__(self, decoder: DecisionDecoder, rows: int) -> None:
        import torch

        self.backbone = decoder.backbone
        self.cache = decoder.prefix_cache(rows)
        self.valid = torch.ones((rows, len(decoder.prefix_ids)), dtype=torch.bool)
        self.position = torch.full((rows,), len(decoder.prefix_ids), dtype=torch.long)

    def append_all(self, chunks: Sequence[Sequence[int]], predict: torch.Tensor) -> torch.Tensor:
        """Run chunks of different lengths, padded on the right; hidden states fp32 ``[rows, T, hidden]`` at
        ``predict`` (places in the chunk)."""
        import torch

        device = self.backbone.device
        lengths = torch.tensor([len(c) for c in chunks])
        width = int(lengths.max())
        pad = self.backbone.tokenizer.pad_token_id
        ids = torch.tensor([[*c, *[pad] * (width - len(c))] for c in chunks])
        self.start = self.valid.shape[1]
        self.valid = torch.cat([self.valid, torch.arange(width)[None] < lengths[:, None]], dim=1)
        position_ids = self.position[:, None] + torch.arange(width)[None]
        output = self.backbone.trunk(
            input_ids=ids.to(device),
            attention_mask=self.valid.long().to(device),
            position_ids=position_ids.to(device),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.chunk_position = self.position
        self.position = self.position + lengths
        hidden = output.last_hidden_state
        return hidden[torch.arange(len(chunks), device=device)[:, None], predict.to(device)].float()

    def append(self, chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run chunks; hidden states fp32 ``[rows, hidden]`` at each chunk's last token."""
        import torch

        return self.append_all(chunks, torch.tensor([[len(c) - 1] for c in chunks]))[:, 0]

    def keep(self, rows: npt.NDArray[np.int64], upto: npt.NDArray[np.int64]) -> None:
        """Keep some rows, each up to place ``upto`` of the last chunk; later slots of a row are stale."""
        import torch

        if not len(rows):
            return
        index, last = torch.from_numpy(rows), torch.from_numpy(upto)
        self.valid = self.valid[index]
        self.valid &= torch.arange(self.valid.shape[1])[None] <= self.start + last[:, None]
        self.position = self.chunk_position[index] + last + 1
        width = self.start + int(last.max()) + 1
        self.valid = self.valid[:, :width]
        if len(rows) < self.chunk_position.shape[0]:
            self.cache.batch_select_indices(index.to(self.backbone.device))
        self.cache.crop(width)

    def reorder(self, parent: torch.Tensor) -> None:
        """Each row goes on from the cache of row ``parent[row]`` (beam search)."""
        self.valid, self.position = self.valid[parent], self.position[parent]
        self.cache.batch_select_indices(parent.to(self.backbone.device))
