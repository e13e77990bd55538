"""How many tokens go through the model at a time: the most that fits, and no more than pays.

On a card the answer is tried: halved until a batch of the longest and one of the shortest reports pass
(accelerate's ``find_executable_batch_size``). On a CPU running out of memory would end in a swapping machine
or a killed process, so the answer is counted from the free memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lite_chex.decode.decoder import BATCH_TOKENS, DecisionDecoder

if TYPE_CHECKING:
    from lite_chex.recipe import ModelSection

SHARE = 0.5
"""Of the free memory on a CPU; the rest is for whoever else is on the machine."""

T = TypeVar("T")


def fit_batch(decoder: DecisionDecoder, section: ModelSection) -> str:
    """Set ``decoder.batch_tokens`` to what this machine takes, and say it in one line."""
    if decoder.backbone.device.type == "cuda":
        decoder.batch_tokens = BATCH_TOKENS
        longest = section.max_length - len(decoder.prefix_ids) - decoder.template.max_answer_length
        within_memory(decoder, lambda: _largest_batches(decoder, longest))
        tried = "more runs out of memory" if decoder.batch_tokens < BATCH_TOKENS else "the most that is tried"
        return f"batch: up to {decoder.batch_tokens:,} tokens a pass (tried on this card; {tried})"
    import psutil

    free = psutil.virtual_memory().available
    per_token = bytes_per_token(decoder, section)
    fits = max(int(SHARE * free / per_token), 1)
    decoder.batch_tokens = min(fits, BATCH_TOKENS)
    why = "the most that is tried" if fits >= BATCH_TOKENS else f"half of the {free / 2**30:.1f} GiB of free memory"
    need = decoder.batch_tokens * per_token / 2**30
    return f"batch: up to {decoder.batch_tokens:,} tokens a pass (about {need:.2f} GiB; {why})"


def bytes_per_token(decoder: DecisionDecoder, section: ModelSection) -> float:
    """Memory of one token of a batch, at most: its keys and values and its share of the prefix's, the largest
    transient of a layer, and its row of the attention mask (as booleans and as numbers)."""
    from lite_chex.model.memory import DTYPE_BYTES, Shapes, cache_bytes, forward_bytes

    causal = decoder.backbone.causal
    shapes, dtype = Shapes(causal.config, (), 0, 0), str(causal.dtype).removeprefix("torch.")
    # The shortest reports make the most rows, each with a copy of the prefix.
    cached = 1 + len(decoder.prefix_ids) / decoder.template.max_answer_length
    mask = (1 + DTYPE_BYTES[dtype]) * section.max_length
    return cache_bytes(shapes, dtype, cached) + forward_bytes(shapes, section, dtype) + mask


def within_memory(decoder: DecisionDecoder, work: Callable[[], T]) -> T:
    """Run ``work``; where memory runs out, again with half of ``decoder.batch_tokens``, and so on. What fitted stays.

    Raises:
        RuntimeError: if it does not fit one report at a time either.
    """
    from accelerate.utils.memory import find_executable_batch_size, should_reduce_batch_size

    try:
        return work()
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    # Outside the handler, whose traceback holds on to the failed pass's tensors.
    before = tokens = decoder.batch_tokens

    def halve() -> int:
        nonlocal tokens
        tokens //= 2
        # Below one answer every batch is a single report: there is nothing left to halve.
        return tokens if tokens > decoder.template.max_answer_length else 0

    def attempt(batch_size: int) -> T:
        decoder.batch_tokens = batch_size
        return work()

    try:
        return find_executable_batch_size(attempt, halve(), halve)()  # type: ignore[no-any-return]
    except RuntimeError:
        decoder.batch_tokens = before  # one report too large says nothing about the others
        raise


def _largest_batches(decoder: DecisionDecoder, longest: int) -> None:
    """One full batch of the longest reports (the largest mask), one of the shortest (the most copies of the prefix)."""
    pad, answer = decoder.backbone.tokenizer.pad_token_id, decoder.template.max_answer_length
    for length in (longest, 1):
        decoder.decode([[pad] * length] * max(decoder.batch_tokens // (length + answer), 1))
