"""``--findings``: the name of a finding set, or a recipe, whose custom findings and their phrases are then used."""

from __future__ import annotations

from lite_chex.errors import UserError
from lite_chex.findings import FINDING_SETS, FindingSet, finding_set

FINDINGS_HELP = "paper13, chexpert14, or a recipe (YAML file or shipped name) for its own findings and phrases."
"""The option's help. Of the recipe only ``data`` need be there."""


def chosen_findings(given: str) -> FindingSet:
    """The set that ``--findings`` means.

    Raises:
        UserError: if it is neither a set's name nor a recipe, naming every wrong key of its ``data`` at once.
    """
    if given in FINDING_SETS:
        return finding_set(given)
    from pydantic import ValidationError, create_model

    from lite_chex.recipe import DataSection, Recipe, recipe_file, shipped_recipes
    from lite_chex.recipe_mistakes import mistakes, read_sections

    if not given.endswith((".yaml", ".yml")) and given not in shipped_recipes():
        raise UserError(f'--findings: "{given}" is none of {", ".join(FINDING_SETS)}, and no recipe (a YAML file)')
    path = recipe_file(given)
    try:
        # Other sections are ignored, and need not be there.
        found = create_model("FindingsOnly", data=(DataSection, ...)).model_validate(read_sections(path))
        data: DataSection = found.data  # type: ignore[attr-defined]
        return data.finding_set
    except ValidationError as error:
        raise UserError(f"{path.name}: {'; '.join(mistakes(error, Recipe))}") from None
