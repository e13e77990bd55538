"""``litechex calibrate``: fit each stage's temperatures on the validation split's gold, beside its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lite_chex.decode.temperature import (
    Calibration,
    countable,
    cross_fitted,
    fit,
    log_probabilities,
)
from lite_chex.errors import UserError
from lite_chex.evaluate.calibration import calibrate
from lite_chex.findings import SKIP
from lite_chex.labelers.llm import fingerprint_of
from lite_chex.train.examples import load_split, merge, print_notes, rule_labels
from lite_chex.train.run import Stage
from lite_chex.train.stages import TITLES, StageLabeler

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lite_chex.findings import LabelArray
    from lite_chex.recipe import Recipe

POLICIES = ("sft", "sft_gold", "dpo", "ppo")


def calibrate_run(recipe: Recipe, console: Console, stage: str | None = None) -> dict[str, Calibration]:
    """Fit and save the temperatures of ``stage``, or of every finished stage that labels.

    Raises:
        UserError: if the run lacks the stage, or validation has no gold with four certainties.
    """
    if stage is not None and stage not in POLICIES:
        raise UserError(f'--stage: "{stage}" does not label; choose one of {", ".join(POLICIES)}')
    Stage(recipe, stage or "sft").require("calibrate")
    presence = [s for s in recipe.data.validation if s.presence]
    gold = [part for part in load_split(recipe, "validation") if not part.presence]
    if not gold:
        raise UserError(
            "data.validation: calibrating takes gold with all four certainties"
            + ("; presence codes never say negative, uncertain or absent" if presence else ", and there is no source")
        )
    print_notes(gold, console)
    examples = merge(gold, "validation")
    for source in presence:
        console.print(
            f"left out: {source.name or source.labels}, presence codes never say negative, uncertain or absent",
            highlight=False,
        )
    labeler = StageLabeler(recipe, console)
    if stage not in (None, *labeler.stages):
        raise UserError(f"--stage {stage}: {labeler.left_out[0]}")
    examples, too_long = labeler.setup.within_length(examples)
    if too_long:
        console.print(f"left out: {too_long} reports longer than model.max_length", highlight=False)
    drafts, found = rule_labels(examples.texts, recipe), {}
    for name in (s for s in POLICIES if s in labeler.stages and stage in (None, s)):
        decoded = labeler.decode(name, labeler.setup.prompt.body_ids(examples.texts), drafts)
        log_p = log_probabilities(decoded.logits, decoded.values, recipe.findings)
        folder = Stage(recipe, name).dir
        made = _fitted(log_p, decoded.values, examples.labels, fingerprint_of(folder), examples.source)
        made.save(folder)
        found[name] = made
    return found


def _fitted(log_p: np.ndarray, values: LabelArray, gold: LabelArray, fingerprint: str, source: str) -> Calibration:
    usable = countable(log_p, gold)
    cells = int(usable.sum())
    if not cells:
        raise UserError(f"data.validation: {source} has no scored cell")
    after = cross_fitted(log_p, gold, usable)
    counted = np.where(usable, gold, SKIP).astype(np.int8)
    nll, ece = [], []
    for p in (log_p, after):
        nll.append(float(-p[usable][np.arange(cells), gold[usable]].mean()))
        reliability = calibrate(counted, values, np.exp(p), bootstrap=0)
        ece.append(float(reliability.ece.value or 0.0) if reliability else 0.0)
    temperatures = tuple(float(t) for t in fit(log_p[usable], gold[usable]))
    return Calibration(temperatures, fingerprint, source, len(gold), cells, nll[0], nll[1], ece[0], ece[1])


def calibration_table(found: dict[str, Calibration]) -> Table:
    """Temperatures, and both figures before and after."""
    from rich.table import Table

    from lite_chex.findings import CERTAINTY_WORDS

    table = Table(title="Calibration", caption="T > 1: was too sure of it. After: on reports not fitted on.")
    table.add_column("stage")
    for word in ("cells", *(f"T {word[:3]}" for word in CERTAINTY_WORDS)):
        table.add_column(word, justify="right")
    table.add_column("NLL", justify="right")
    table.add_column("ECE", justify="right")
    for name, made in found.items():
        table.add_row(
            TITLES[name],
            f"{made.cells:,}",
            *(f"{t:.2f}" for t in made.temperatures),
            f"{made.nll_before:.3f} -> {made.nll_after:.3f}",
            f"{made.ece_before:.3f} -> {made.ece_after:.3f}",
        )
    return table
