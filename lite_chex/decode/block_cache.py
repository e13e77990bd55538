"""A KV cache whose sums do not depend on how the tokens came in.

PyTorch's attention on a CPU adds up the keys in vector lanes; where the last ones fall depends on how many there
are. With the keys filled up to whole blocks (masked out) an attention query gets the same bits whatever stands behind
it. Seen on an EPYC with AVX512-BF16, in bf16 with SmolLM2's shapes: attention over 41 cuttings of a sequence agreed to
the bit with blocks of 16 and more (18 of 41 without), and so did all layers of a 2-layer model. With the real model's
30 layers a difference of 0.18 logits was left, so the decoder measures before it relies on it (``tie_tolerance``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

BLOCK = 64


class BlockCache(DynamicCache):
    """Hands out keys and values filled with zeros up to a multiple of ``BLOCK``; stores what it was given."""

    @classmethod
    def around(cls, cache: DynamicCache) -> BlockCache:
        """The same layers behind this way of handing them out."""
        made = cls()
        made.layers = cache.layers
        return made

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().update(*args, **kwargs)
        fill = (0, 0, 0, -keys.shape[-2] % BLOCK)
        return functional.pad(keys, fill), functional.pad(values, fill)


def block_mask(valid: torch.Tensor, start: int) -> torch.Tensor:
    """Mask for queries in the slots from ``start`` on: ``[rows, slots] -> bool [rows, 1, slots - start, filled]``."""
    slots = valid.shape[1]
    key = torch.arange(slots + -slots % BLOCK)
    causal = key[None] <= torch.arange(start, slots)[:, None]
    return functional.pad(valid, (0, -slots % BLOCK))[:, None, None] & causal


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A bool mask as attention adds it, 0 or minus infinity. Given a bool mask, every layer makes its own of these,
    and keeps it for the backward pass; the bits of the result are the same."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
