"""A batch while it is decoded: rows run chunks of different lengths, drop out, and go back to a slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lite_chex.decode.packed import padded

if TYPE_CHECKING:
    import torch

    from lite_chex.decode.decoder import DecisionDecoder


@dataclass
class Count:
    """What went through the model: rows summed over passes, their tokens, and the slots with padding."""

    rows: int = 0
    tokens: int = 0
    slots: int = 0

    @property
    def padding(self) -> float:
        return 1 - self.tokens / max(self.slots, 1)


class BatchCache:
    """A batch's KV cache in which rows may hold stale or padded slots, masked per row.

    ``valid``: bool ``[rows, slots]``; ``position``: int64 ``[rows]``, the next token's position.
    """

    def __init__(self, decoder: DecisionDecoder, rows: int, run: Count | None = None) -> None:
        import torch

        from lite_chex.decode.block_cache import BlockCache

        self.run = run or Count()
        self.backbone = decoder.backbone
        # Other attention functions take no ready-made mask.
        self.blocks = self.backbone.causal.config._attn_implementation == "sdpa"
        cache = decoder.prefix_cache(rows)
        self.cache = BlockCache.around(cache) if self.blocks else cache
        self.valid = torch.ones((rows, len(decoder.prefix_ids)), dtype=torch.bool)
        self.position = torch.full((rows,), len(decoder.prefix_ids), dtype=torch.long)

    @property
    def width(self) -> int:
        """Slots so far, the prefix's included."""
        return self.valid.shape[1]

    def append_all(self, chunks: Sequence[Sequence[int]], predict: torch.Tensor) -> torch.Tensor:
        """Run chunks of different lengths, padded on the right; hidden states fp32 ``[rows, T, hidden]`` at
        ``predict`` (places in the chunk)."""
        import torch

        from lite_chex.decode.block_cache import additive, block_mask

        device = self.backbone.device
        lengths = torch.tensor([len(c) for c in chunks])
        width = int(lengths.max())
        self.run.rows += len(chunks)
        self.run.tokens += int(lengths.sum())
        self.run.slots += len(chunks) * width
        pad = self.backbone.tokenizer.pad_token_id
        ids = torch.tensor([[*c, *[pad] * (width - len(c))] for c in chunks])
        self.start = self.width
        self.valid = torch.cat([self.valid, torch.arange(width)[None] < lengths[:, None]], dim=1)
        mask = (block_mask(self.valid, self.start) if self.blocks else self.valid.long()).to(device)
        position_ids = self.position[:, None] + torch.arange(width)[None]
        output = self.backbone.trunk(
            input_ids=ids.to(device),
            attention_mask=additive(mask, self.backbone.causal.dtype) if self.blocks else mask,
            position_ids=position_ids.to(device),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + lengths
        hidden = output.last_hidden_state
        return hidden[torch.arange(len(chunks), device=device)[:, None], predict.to(device)].float()

    def append(self, chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run chunks; hidden states fp32 ``[rows, hidden]`` at each chunk's last token."""
        import torch

        return self.append_all(chunks, torch.tensor([[len(c) - 1] for c in chunks]))[:, 0]

    def keep(self, rows: npt.NDArray[np.int64], last: int) -> None:
        """Keep some rows, up to place ``last`` of the last chunk; up to there no row may hold padded slots."""
        import torch

        width = self.start + last + 1
        self.valid = torch.ones((len(rows), width), dtype=torch.bool)
        self.position = torch.full((len(rows),), width)
        self.cache.batch_select_indices(torch.from_numpy(rows).to(self.backbone.device))
        self.cache.crop(width)

    def reorder(self, parent: torch.Tensor) -> None:
        """Each row goes on from the cache of row ``parent[row]`` (beam search)."""
        self.valid, self.position = self.valid[parent], self.position[parent]
        self.cache.batch_select_indices(parent.to(self.backbone.device))


class WholeRows:
    """The same without a KV cache, for a model that takes none: each chunk runs with all that came before it."""

    def __init__(self, decoder: DecisionDecoder, rows: int, run: Count) -> None:
        self.run, self.backbone = run, decoder.backbone
        self.rows = [list(decoder.prefix_ids) for _ in range(rows)]

    @property
    def width(self) -> int:
        """Tokens of every row, until rows are appended to that :meth:`keep` has not cut."""
        return len(self.rows[0])

    def append_all(self, chunks: Sequence[Sequence[int]], predict: torch.Tensor) -> torch.Tensor:
        """As :meth:`BatchCache.append_all`."""
        import torch

        self.start = self.width
        before = torch.tensor([len(row) for row in self.rows])
        self.rows = [[*row, *chunk] for row, chunk in zip(self.rows, chunks, strict=True)]
        width = padded(max(map(len, self.rows)))
        self.run.rows += len(self.rows)
        self.run.tokens += sum(map(len, self.rows))
        self.run.slots += len(self.rows) * width
        pad, device = self.backbone.tokenizer.pad_token_id, self.backbone.device
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in self.rows], device=device)
        # Padding stands on the right, where causal attention never looks.
        hidden = self.backbone.trunk(input_ids=ids, use_cache=False).last_hidden_state
        places = (before[:, None] + predict).to(device)
        return hidden[torch.arange(len(self.rows), device=device)[:, None], places].float()

    def append(self, chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        """As :meth:`BatchCache.append`."""
        import torch

        return self.append_all(chunks, torch.tensor([[len(c) - 1] for c in chunks]))[:, 0]

    def keep(self, rows: npt.NDArray[np.int64], last: int) -> None:
        """As :meth:`BatchCache.keep`."""
        self.rows = [self.rows[i][: self.start + last + 1] for i in rows.tolist()]
