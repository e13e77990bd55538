"""What each part of a run was made from, so that a later stage never builds on something stale.

Beside a stage stand the fingerprints of what it was made from (``made_from.json``); the pairs' are also of their gold
and of what the recipe says of them. Training SFT again gives the adapter another fingerprint, and what was made from
the earlier one is then refused until it is made again. Parts without a record (made before there were any, or by
people) are taken as they are. The adapter of another run that SFT starts from matters to ``--resume`` alone: what SFT
made of it stays good when that run is trained again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lite_chex.data.files import atomic_path
from lite_chex.errors import UserError
from lite_chex.labelers.committed import file_digest
from lite_chex.train.run import MADE_FROM, PAIRS_FILE, Stage

if TYPE_CHECKING:
    from lite_chex.recipe import Recipe

PAIRS = "preferences"
START = "sft.start_from"
PARENTS = {
    PAIRS: ("sft",),
    "sft_gold": ("sft",),
    "reward": ("sft", PAIRS),
    "ppo": ("sft", "reward"),
    "dpo": ("sft", PAIRS),
    "student": ("sft", "dpo", "ppo"),  # its record names the one that taught it
}
COMMANDS = {
    PAIRS: "litechex preferences",
    "sft_gold": "litechex train-sft --on-gold",
    "reward": "litechex train-rm",
    "ppo": "litechex train-ppo",
    "dpo": "litechex train-dpo",
    "student": "litechex distill",
}


def parents(recipe: Recipe, part: str) -> dict[str, str]:
    """SHA-256 of what ``part`` is made from, as it lies in the run now; what is missing is left out."""
    names = (START,) if part == "sft" and recipe.sft.start_from else PARENTS.get(part, ())
    files = {name: _file(recipe, name) for name in names}
    found = {name: file_digest(file) for name, file in files.items() if file.is_file()}
    return found | _settings(recipe) if part == PAIRS else found


def _settings(recipe: Recipe) -> dict[str, str]:
    """What of the recipe decides which pairs are sampled and how they are ranked."""
    own = recipe.preferences.model_dump(mode="json", exclude={"validation_fraction"})
    gold: list[object] = []
    for source in recipe.data.preference:
        gold.append(source.model_dump(mode="json", exclude={"name", "reports", "labels"}))
        gold += [file_digest(Path(p)) if Path(p).is_file() else p for p in (source.reports, source.labels) if p]
    parts = {"recipe (seed, preferences)": [own, recipe.seed], "data.preference": gold}
    return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}


def record_pairs(recipe: Recipe, *, sampled: bool) -> None:
    """Note what the pairs file was made from. sampled: from the SFT policy, rather than people's pairs alone."""
    made_from = parents(recipe, PAIRS) if sampled else {}
    # With the pairs' own fingerprint: a file that somebody puts in their place has no record.
    with atomic_path(_record(recipe, PAIRS)) as temporary:
        temporary.write_text(json.dumps(made_from | {PAIRS: file_digest(_file(recipe, PAIRS))}), encoding="utf-8")


def changed(recipe: Recipe, part: str) -> list[str]:
    """What ``part`` was made from that is another now, as names of parts; none where there is no record."""
    path = _record(recipe, part)
    if part not in PARENTS or not path.is_file():
        return []
    before: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    if part == PAIRS:
        pairs = _file(recipe, PAIRS)
        if not pairs.is_file() or before.pop(PAIRS) != file_digest(pairs):
            return []
    now = parents(recipe, part)
    return [name for name, digest in before.items() if now.get(name, digest) != digest]


def stale(recipe: Recipe, parts: tuple[str, ...]) -> str | None:
    """A sentence that names what is stale among ``parts`` and the commands that make it again; else None."""
    found = {part: changed(recipe, part) for part in parts}
    found = {part: names for part, names in found.items() if names}
    if not found:
        return None
    causes = list(dict.fromkeys(_name(name) for names in found.values() for name in names))
    made, them = ("was made", "it") if len(found) == 1 else ("were made", "them")
    return (
        f"{recipe.run_dir}: {_listed([_name(part) for part in found])} {made} from an earlier {_listed(causes)}; "
        f"run {', then '.join(COMMANDS[part] for part in found)} to make {them} again"
    )


def require_fresh(recipe: Recipe, *parts: str) -> None:
    """Raises UserError if one of ``parts`` was made from something that has been made again since."""
    sentence = stale(recipe, parts)
    if sentence is not None:
        raise UserError(sentence)


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _name(part: str) -> str:
    return {PAIRS: PAIRS_FILE, "sft": "SFT"}.get(part, part)


def _file(recipe: Recipe, part: str) -> Path:
    if part == PAIRS:
        return recipe.run_dir / PAIRS_FILE
    folder = Path(str(recipe.sft.start_from)) if part == START else Stage(recipe, part).dir
    return folder / "adapter_model.safetensors"


def _record(recipe: Recipe, part: str) -> Path:
    return recipe.run_dir / f"{PAIRS}.{MADE_FROM}" if part == PAIRS else Stage(recipe, part).dir / MADE_FROM
