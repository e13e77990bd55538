"""Several answers to one report in one row: prompt once, answers side by side under a block mask.

Reward training, PPO's scoring and PPO's update all read hidden states at decisions of many answers to
the same report. Packing them costs the prompt once instead of once per answer, and gradients equal those
of separate passes (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.findings import LabelArray

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lite_chex.decode.template import AnswerTemplate


WIDTH = 32


def padded(longest: int) -> int:
    """Width of a batch to train on: few different ones. oneDNN makes its kernels per shape and keeps their memory:
    without this SFT of SmolLM2 on a CPU grew from 6 to 11 GiB in 750 steps of many lengths."""
    return -(-longest // WIDTH) * WIDTH


@dataclass(frozen=True)
class PackedBatch:
    """R rows (reports) of length L holding N answers of T decisions.

    input_ids, position_ids: int64 ``[R, L]``. mask: bool ``[R, 1, L, L]``, True where attention is allowed.
    row: int64 ``[N]``, the row of each answer. predict: ``[N, T]``, the token that predicts each decision.
    decided: ``[N, T]``, the decision's own token (it has seen the choice). last: ``[N]``, the end token.
    values: ``[N, T]``.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor
    row: torch.Tensor
    predict: torch.Tensor
    decided: torch.Tensor
    last: torch.Tensor
    values: torch.Tensor


def pack(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[LabelArray],
    template: AnswerTemplate,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> PackedBatch:
    """Pack answers ``[K_r, T]`` of each prompt into one row per prompt, padded on the right."""
    import torch

    rows: list[list[int]] = []
    positions: list[list[int]] = []
    groups: list[list[int]] = []
    row_of, predict, decided, last, values = [], [], [], [], []
    for r, (prompt, choices) in enumerate(zip(prompts, answers, strict=True)):
        ids, place, group = list(prompt), list(range(len(prompt))), [0] * len(prompt)
        for k, labels in enumerate(np.asarray(choices), start=1):
            answer = template.answer_ids(labels)
            at = len(ids)
            where = [at + p for p in template.decision_positions(labels)]
            ids += answer
            place += range(len(prompt), len(prompt) + len(answer))
            group += [k] * len(answer)
            row_of.append(r)
            decided.append(where)
            # The first decision may follow the prompt directly: then the prompt's last token predicts it.
            predict.append([w - 1 if w > at else len(prompt) - 1 for w in where])
            last.append(len(ids) - 1)
            values.append([int(v) for v in labels])
        rows.append(ids)
        positions.append(place)
        groups.append(group)
    length = padded(max(len(ids) for ids in rows))
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    position_ids = torch.zeros((len(rows), length), dtype=torch.long)
    group_ids = torch.full((len(rows), length), -1, dtype=torch.long)
    for r, ids in enumerate(rows):
        input_ids[r, : len(ids)] = torch.tensor(ids)
        position_ids[r, : len(ids)] = torch.tensor(positions[r])
        group_ids[r, : len(ids)] = torch.tensor(groups[r])
    query, key = group_ids[:, :, None], group_ids[:, None, :]
    mask = ((key == 0) | (key == query)) & torch.ones(length, length, dtype=torch.bool).tril()
    tensors = [torch.tensor(x, dtype=torch.long) for x in (row_of, predict, decided, last, values)]
    return PackedBatch(*(t.to(device) for t in (input_ids, position_ids, mask.unsqueeze(1), *tensors)))


def hidden_states(trunk: PreTrainedModel, batch: PackedBatch) -> torch.Tensor:
    """Last hidden states ``[R, L, hidden]`` of a packed batch."""
    from lite_chex.decode.block_cache import additive

    output = trunk(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=additive(batch.mask, trunk.dtype),
        use_cache=False,
    )
    return output.last_hidden_state


def at(hidden: torch.Tensor, batch: PackedBatch, index: torch.Tensor) -> torch.Tensor:
    """Hidden states at ``index`` (``[N, T]`` or ``[N]``) of each answer's row, in fp32."""
    row = batch.row if index.dim() == 1 else batch.row.unsqueeze(1)
    return hidden[row, index].float()


def decision_logits(hidden: torch.Tensor, batch: PackedBatch, weight: torch.Tensor) -> torch.Tensor:
    """Candidate logits fp32 ``[N, T, 4]``: no full-vocabulary logits. weight: ``[T, 4, hidden]``."""
    import torch

    return torch.einsum("nth,tch->ntc", at(hidden, batch, batch.predict), weight)
