"""Batch size by itself: halved where memory runs out, counted where it must not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from lite_chex.decode.budget import SHARE, bytes_per_token, fit_batch, within_memory
from lite_chex.decode.decoder import BATCH_TOKENS
from tests.conftest import model_section
from tests.decode.test_decoder import World

OUT_OF_MEMORY = (torch.OutOfMemoryError, RuntimeError)


@pytest.fixture
def world(tiny_base: Path) -> World:
    return World(tiny_base)


@contextmanager
def card_of(world: World, tokens: int, error: type[RuntimeError], seen: list[int] | None = None) -> Iterator[None]:
    """The model runs out of memory on any pass of more than so many tokens."""

    def full(module: Any, args: Any, kwargs: Any) -> None:
        size = kwargs["input_ids"].numel()
        if size > tokens:
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if seen is not None:
            seen.append(size)

    hook = world.backbone.trunk.register_forward_pre_hook(full, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_halved_until_it_fits_and_stays(world: World, error: type[RuntimeError]) -> None:
    decoder, bodies = world.decoder, world.prompt.body_ids(world.texts(120, 1))
    expected = decoder.decode(bodies).values
    seen: list[int] = []
    with card_of(world, 300, error, seen):
        found = within_memory(decoder, lambda: decoder.decode(bodies))
        fitted = decoder.batch_tokens
        again = decoder.decode(bodies)  # no more to catch: what fitted stays
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(again.values, expected)
    assert fitted in (4096 // 8, 4096 // 16, 4096 // 32)
    assert max(seen) > 100  # halved no further than needed


def test_a_report_that_never_fits_spoils_nothing(world: World) -> None:
    decoder = world.decoder
    with card_of(world, 20, torch.OutOfMemoryError), pytest.raises(RuntimeError, match="No executable batch size"):
        within_memory(decoder, lambda: decoder.decode(world.prompt.body_ids(world.texts(4, 1))))
    assert decoder.batch_tokens == 4096


def test_other_errors_are_not_swallowed(world: World) -> None:
    def broken() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        within_memory(world.decoder, broken)


def test_counted_from_free_memory_on_a_cpu(world: World, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = model_section(tiny_base)
    per_token = bytes_per_token(world.decoder, section)
    # Keys and values alone: 2 layers x 2 x 32 numbers of 4 bytes.
    assert per_token > 2 * 2 * 32 * 4
    for tokens, words in ((1000, "free memory"), (10 * BATCH_TOKENS, "most that is tried")):
        available = int((tokens + 0.5) * per_token / SHARE)
        monkeypatch.setattr(psutil, "virtual_memory", lambda a=available: SimpleNamespace(available=a))
        line = fit_batch(world.decoder, section)
        assert world.decoder.batch_tokens == min(tokens, BATCH_TOKENS)
        assert words in line
        assert f"{min(tokens, BATCH_TOKENS):,} tokens" in line
