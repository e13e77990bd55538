"""``--findings``: the name of a finding set, or a recipe, whose custom findings and their phrases are then used."""

from __future__ import annotations

from lite_chex.errors import UserError
from lite_chex.findings import FINDING_SETS, FindingSet, finding_set

FINDINGS_HELP = "paper13, chexpert14, or a recipe (YAML file or shipped name) for its own findings and phrases."
"""The option's help. Of the recipe only ``data`` need be there."""


def chosen_findings(given: str) -> FindingSet:
    """The set that ``--findings`` means.

    Raises:
        UserError: if it is neither a set's name nor a recipe.
    """
    if given in FINDING_SETS:
        return finding_set(given)
    from lite_chex.recipe import load_findings, shipped_recipes

    if given.endswith((".yaml", ".yml")) or given in shipped_recipes():
        return load_findings(given)
    raise UserError(f'--findings: "{given}" is none of {", ".join(FINDING_SETS)}, and no recipe (a YAML file)')
