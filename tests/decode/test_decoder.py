"""Draft and verify, packing and beams against the exact baseline, on a tiny real model in fp32."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lite_chex.data.readers import iter_reports
from lite_chex.decode import decisions, packed
from lite_chex.decode.batch_cache import Count
from lite_chex.decode.beam import beam_search
from lite_chex.decode.decoder import DecisionDecoder
from lite_chex.decode.template import build_template
from lite_chex.findings import PAPER13, Certainty, FindingSet
from lite_chex.labelers.registry import CHUNK_SIZES
from lite_chex.model.backbone import load_base
from lite_chex.prompt import PromptEncoder
from lite_chex.recipe import shipped
from lite_chex.train.setup import gumbel
from tests.conftest import model_section, random_labels

WORDS = ["no", "small", "left", "right", "pleural", "effusion", "pneumothorax", "clear", "heart", "size", "normal"]
WORDS += ["opacity", "possible", "edema"]


class World:
    def __init__(self, base: Path, findings: FindingSet = PAPER13, dtype: str = "float32") -> None:
        self.backbone = load_base(model_section(base, dtype=dtype))
        self.prompt = PromptEncoder(self.backbone.tokenizer, findings)
        self.template = build_template(self.prompt)
        self.decoder = DecisionDecoder(self.backbone, self.template, self.prompt.prefix_ids)

    def texts(self, n: int, seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [" ".join(rng.choice(WORDS, rng.integers(1, 40))) + "." for _ in range(n)]


@pytest.fixture(scope="module")
def world(tiny_base: Path) -> World:
    return World(tiny_base)


def test_lossless_for_any_draft_and_batch(world: World) -> None:
    rng = np.random.default_rng(0)
    texts = world.texts(300, 1)
    bodies = world.prompt.body_ids(texts)
    exact = world.decoder.stepwise(bodies, batch_size=50)
    assert len({tuple(v) for v in exact.values.tolist()}) > 20  # the random model does not always say the same
    for drafts in (None, exact.values, *(random_labels(rng, 300) for _ in range(4))):
        for size in (7, None):
            found = world.decoder.decode(bodies, drafts, batch_size=size)
            np.testing.assert_array_equal(found.values, exact.values)
            np.testing.assert_allclose(found.logits, exact.logits, atol=2e-4)
    assert world.decoder.decode(bodies, exact.values).passes == 1.0


def test_without_a_cache_the_labels_are_the_same(world: World) -> None:
    """As for unsloth's trunk, which takes no KV cache: whole rows again instead of what is new."""
    bodies = world.prompt.body_ids(world.texts(40, 22))
    drafts = random_labels(np.random.default_rng(23), 40)
    whole = DecisionDecoder(replace(world.backbone, takes_cache=False), world.template, world.prompt.prefix_ids)
    for found, exact in (
        (whole.decode(bodies, drafts, batch_size=7), world.decoder.decode(bodies, drafts, batch_size=7)),
        (whole.stepwise(bodies, batch_size=7), world.decoder.stepwise(bodies, batch_size=7)),
    ):
        np.testing.assert_array_equal(found.values, exact.values)
        np.testing.assert_allclose(found.logits, exact.logits, atol=2e-4)
        assert found.passes == exact.passes


def test_gradient_checkpointing_changes_no_label(world: World) -> None:
    """transformers drops the KV cache of a model that trains with gradient checkpointing: a rollout must not see it."""
    causal, bodies = world.backbone.causal, world.prompt.body_ids(world.texts(12, 21))
    exact = world.decoder.stepwise(bodies, batch_size=12)
    causal.gradient_checkpointing_enable({"use_reentrant": False})
    causal.train()
    try:
        world.decoder.refresh()
        found = world.decoder.decode(bodies, None)
        again = world.decoder.stepwise(bodies, batch_size=12)
        assert causal.training
    finally:
        causal.gradient_checkpointing_disable()
        causal.eval()
    for other in (found, again):
        np.testing.assert_array_equal(other.values, exact.values)
        np.testing.assert_allclose(other.logits, exact.logits, atol=2e-4)


def test_batch_size_does_not_change_the_baseline(world: World) -> None:
    bodies = world.prompt.body_ids(world.texts(12, 2))
    one, many = world.decoder.stepwise(bodies), world.decoder.stepwise(bodies, batch_size=12)
    np.testing.assert_array_equal(one.values, many.values)


def test_lossless_in_bf16(tiny_base: Path) -> None:
    """The baseline at batch size 1 is what is promised; near ties are where rounding could break it."""
    world = World(tiny_base, dtype="bfloat16")
    decoder, bodies = world.decoder, world.prompt.body_ids(world.texts(60, 11))
    exact = decoder.stepwise(bodies)
    drafts = random_labels(np.random.default_rng(12), 60)
    np.testing.assert_array_equal(decoder.decode(bodies, drafts).values, exact.values)
    # As on a machine whose kernels round one pass and many differently.
    decoder.tie_tolerance = 0.5
    for draft in (None, drafts):
        found = decoder.decode(bodies, draft)
        np.testing.assert_array_equal(found.values, exact.values)
        assert 0 < found.ties < 60
    assert decoder.decode(bodies, noise=gumbel((60, 13, 4), 13)).ties == 0


def test_near_ties_are_left_to_the_baseline(world: World) -> None:
    """Logits of a sloppier machine: whatever rounding flips is put right, at the price of the near ties alone."""
    decoder, bodies = world.decoder, world.prompt.body_ids(world.texts(40, 14))
    exact = decoder.stepwise(bodies)
    close = decisions.margins(torch.from_numpy(exact.logits), torch.from_numpy(exact.values).long(), PAPER13).numpy()
    wrong, run = exact.values.copy(), Count()
    logits = exact.logits.copy()
    order = np.argsort(close.min(axis=1))[:5]
    for i in order:
        t = int(close[i].argmin())
        first, second = np.argsort(-np.where(PAPER13.allowed[t], logits[i, t], -np.inf))[:2]
        logits[i, t, [first, second]] = logits[i, t, [second, first]]
        wrong[i, t] = second
    wrong = PAPER13.consistent(wrong)
    decoder.tie_tolerance = float(np.sort(close.min(axis=1))[4]) * 1.0001
    try:
        with torch.inference_mode():
            assert decoder._settle(bodies, wrong, logits, run) == 5
    finally:
        decoder.tie_tolerance = 0.0
    np.testing.assert_array_equal(wrong, exact.values)
    assert run.rows <= 5 * 13


def test_padding_stays_below_five_percent(world: World) -> None:
    """With what is shipped: the runner's chunks, the decoder's budget, the sample reports."""
    texts = [r.text for r in iter_reports(shipped("data_samples") / "reports_test.csv") if r.text.strip()]
    size = CHUNK_SIZES["llm"]
    for start in range(0, 512, size):
        bodies = world.prompt.body_ids(texts[start : start + size])
        found = world.decoder.decode(bodies)
        assert found.padding < 0.05
        rows = len(bodies) / len(list(world.decoder.batches([len(b) for b in bodies])))
        assert rows > 10  # not by labelling one at a time
    assert world.decoder.decode(world.prompt.body_ids(texts[:size]), batch_size=64).padding > 0.05


def test_no_finding_never_contradicts(world: World) -> None:
    values = world.decoder.decode(world.prompt.body_ids(world.texts(200, 3))).values
    np.testing.assert_array_equal(values, PAPER13.consistent(values))


def test_sampling_follows_the_models_distribution(world: World) -> None:
    body = world.prompt.body_ids(world.texts(1, 4))
    n = 4000
    found = world.decoder.decode(body * n, noise=gumbel((n, 13, 4), 5), temperature=1.3, batch_size=500)
    log_p, _ = decisions.log_probs(
        torch.from_numpy(found.logits[:1]), torch.from_numpy(found.values[:1]).long(), PAPER13, 1.3
    )
    share = np.bincount(found.values[:, 0], minlength=4) / n
    np.testing.assert_allclose(share, log_p[0, 0].exp().numpy(), atol=4 * (0.25 / n) ** 0.5)


def test_sampled_log_probs_equal_the_packed_recomputation(world: World) -> None:
    texts = world.texts(9, 6)
    bodies, k = world.prompt.body_ids(texts), 3
    repeated = [b for b in bodies for _ in range(k)]
    found = world.decoder.decode(repeated, noise=gumbel((27, 13, 4), 7), temperature=1.5)
    batch = packed.pack(
        world.prompt.prompt_ids(texts),
        found.values.reshape(9, k, 13),
        world.template,
        world.backbone.tokenizer.pad_token_id,
    )
    with torch.no_grad():
        logits = packed.decision_logits(packed.hidden_states(world.backbone.trunk, batch), batch, world.decoder.weight)
    values = torch.from_numpy(found.values).long()
    ours, _ = decisions.log_probs(torch.from_numpy(found.logits), values, PAPER13, 1.5)
    theirs, _ = decisions.log_probs(logits, values, PAPER13, 1.5)
    np.testing.assert_allclose(
        decisions.chosen_log_probs(ours, values), decisions.chosen_log_probs(theirs, values), atol=1e-5
    )


def test_packed_gradients_equal_separate_passes(world: World) -> None:
    prompts = world.prompt.prompt_ids(world.texts(2, 8))
    answers = random_labels(np.random.default_rng(9), 6).reshape(2, 3, 13)
    pad, trunk = world.backbone.tokenizer.pad_token_id, world.backbone.trunk
    parameter = trunk.layers[0].self_attn.q_proj.weight.requires_grad_(True)

    def gradient(groups: list[tuple[list[int], np.ndarray]]) -> torch.Tensor:
        parameter.grad = None
        for prompt, group in groups:
            batch = packed.pack([prompt], [group], world.template, pad)
            logits = packed.decision_logits(packed.hidden_states(trunk, batch), batch, world.decoder.weight)
            torch.log_softmax(logits, -1)[..., 0].sum().backward()
        assert parameter.grad is not None
        return parameter.grad.clone()

    together = gradient(list(zip(prompts, answers)))
    apart = gradient([(p, a[i : i + 1]) for p, a in zip(prompts, answers) for i in range(3)])
    parameter.requires_grad_(False)
    assert (together - apart).norm() < 1e-5 * apart.norm()


def test_attention_masks_that_cost_less_change_nothing(world: World) -> None:
    """SFT and DPO give no mask (padding stands on the right), packed passes one that is added."""
    pad, trunk = world.backbone.tokenizer.pad_token_id, world.backbone.trunk
    rows = world.prompt.prompt_ids(world.texts(3, 12))
    width = max(map(len, rows)) + 5
    with torch.no_grad():
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        padded = trunk(input_ids=ids, use_cache=False).last_hidden_state
        for row, hidden in zip(rows, padded):
            alone = trunk(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(hidden[: len(row)], alone, atol=2e-5, rtol=0)
        answers = random_labels(np.random.default_rng(9), 6).reshape(3, 2, 13)
        batch = packed.pack(rows, list(answers), world.template, pad)
        given = trunk(
            input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.mask, use_cache=False
        ).last_hidden_state
        assert torch.equal(packed.hidden_states(trunk, batch), given)


def test_beams_against_exhaustive_search(tiny_base: Path) -> None:
    small = World(tiny_base, FindingSet("small", ("Edema", "Fracture", "No Finding")))
    texts = small.texts(12, 10)
    bodies = small.prompt.body_ids(texts)
    answers = np.array(list(itertools.product(range(4), repeat=3)), dtype=np.int8)
    answers = np.unique(small.decoder.findings.consistent(answers), axis=0)
    best = []
    for prompt in small.prompt.prompt_ids(texts):
        batch = packed.pack([prompt], [answers], small.template, small.backbone.tokenizer.pad_token_id)
        with torch.no_grad():
            logits = packed.decision_logits(
                packed.hidden_states(small.backbone.trunk, batch), batch, small.decoder.weight
            )
        log_p, _ = decisions.log_probs(logits, batch.values, small.decoder.findings)
        best.append(answers[int(decisions.chosen_log_probs(log_p, batch.values).sum(-1).argmax())])
    np.testing.assert_array_equal(beam_search(small.decoder, bodies, beams=16).values, np.array(best))
    greedy = beam_search(small.decoder, bodies, beams=1)
    np.testing.assert_array_equal(greedy.values, small.decoder.decode(bodies).values)


def test_beams_keep_to_the_budget_and_to_the_batch_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = world.prompt.body_ids(world.texts(9, 10))
    row = max(map(len, bodies)) + world.template.max_answer_length
    passes: list[int] = []

    def search(decoder: object, chosen: list[list[int]], beams: int) -> tuple[np.ndarray, np.ndarray]:
        passes.append(len(chosen) * beams)
        return np.zeros((len(chosen), 13), np.int8), np.zeros((len(chosen), 13, 4), np.float32)

    monkeypatch.setattr("lite_chex.decode.beam._search", search)
    monkeypatch.setattr(world.decoder, "batch_tokens", 8 * row)
    beam_search(world.decoder, bodies, beams=4)
    assert sum(passes) == 36
    assert max(passes) <= 8
    passes.clear()
    beam_search(world.decoder, bodies, beams=4, batch_size=12)
    assert passes == [12, 12, 12]


def test_forced_decision_has_one_candidate() -> None:
    values = torch.full((1, 13), int(Certainty.ABSENT))
    values[0, 4] = Certainty.UNCERTAIN
    log_p, free = decisions.log_probs(torch.randn(1, 13, 4), values, PAPER13)
    assert free[0].tolist() == [True] * 12 + [False]
    assert log_p[0, 12].exp().tolist() == pytest.approx([0, 0, 0, 1])
