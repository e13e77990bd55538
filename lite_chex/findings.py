"""Findings, certainties, CheXpert's codes and the JSON answer: the vocabulary of everything else.

A report's labels are an ``int8`` vector in the order of a :class:`FindingSet`; each value is a
:class:`Certainty` (or :data:`SKIP` in gold files). The value of a certainty is also its index among
the four candidates of a decision, so labels, logits and probabilities share one order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lite_chex.errors import UserError

LabelArray = npt.NDArray[np.int8]


class Certainty(IntEnum):
    """What a report says about one finding."""

    POSITIVE = 0
    NEGATIVE = 1
    UNCERTAIN = 2
    ABSENT = 3

    @property
    def word(self) -> str:
        """The value as it stands in the JSON answer."""
        return self.name.lower()


CERTAINTY_WORDS: tuple[str, ...] = tuple(c.word for c in Certainty)
MENTIONED: tuple[Certainty, ...] = (Certainty.POSITIVE, Certainty.NEGATIVE, Certainty.UNCERTAIN)
SKIP = np.int8(-1)
"""A gold cell marked ``x`` (or ``A`` in presence gold): it is not scored."""

NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"
ALIASES: Mapping[str, str] = {"Airspace Opacity": "Lung Opacity"}
"""Column names that other files use for a finding (MIMIC-CXR-JPG's radiologist test set)."""

_CODES: Mapping[Certainty, str] = {
    Certainty.POSITIVE: "1.0",
    Certainty.NEGATIVE: "0.0",
    Certainty.UNCERTAIN: "-1.0",
    Certainty.ABSENT: "",
}


def to_code(value: int) -> str:
    """CheXpert's code of a label: ``1.0``, ``0.0``, ``-1.0``, empty for absent, ``x`` for SKIP."""
    return "x" if value == SKIP else _CODES[Certainty(value)]


def from_code(cell: object) -> int:
    """Read one cell of a label file; blank (also ``nan`` and ``None``) is absent, never negative.

    Raises:
        ValueError: if the cell is none of 1, 0, -1, blank and x.
    """
    text = "" if cell is None else str(cell).strip()
    if text.lower() in ("", "nan", "none", "null"):
        return Certainty.ABSENT
    if text.lower() == "x":
        return int(SKIP)
    try:
        number = float(text)
    except ValueError:
        number = None  # type: ignore[assignment]
    codes = {1.0: Certainty.POSITIVE, 0.0: Certainty.NEGATIVE, -1.0: Certainty.UNCERTAIN}
    if number not in codes:
        raise ValueError(f"{text!r} is not a CheXpert code (1.0, 0.0, -1.0, blank, or x in gold)")
    return codes[number]


@dataclass(frozen=True)
class FindingSet:
    """An ordered set of findings, with the constraint that keeps an answer free of contradiction.

    "No Finding", where the set has it, comes last, is only ever positive or absent, and is absent
    whenever a finding other than Support Devices is positive or uncertain.

    aliases: other names, of columns and of the rules' vocabulary, and the finding each stands for.
    phrases: a user's words for the rule labeler, by finding.
    """

    name: str
    names: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=lambda: dict(ALIASES), compare=False)
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if NO_FINDING in self.names[:-1]:
            raise UserError(f'findings "{self.name}": "{NO_FINDING}" must come last')
        if len(set(self.names)) != len(self.names):
            raise UserError(f'findings "{self.name}": a finding is named twice')

    def __len__(self) -> int:
        return len(self.names)

    def index(self, finding: str) -> int:
        return self.names.index(finding)

    def only(self, columns: Iterable[int]) -> FindingSet:
        """The set of these findings alone, under the same name."""
        return replace(self, names=tuple(self.names[i] for i in columns))

    @cached_property
    def has_no_finding(self) -> bool:
        return bool(self.names) and self.names[-1] == NO_FINDING

    @cached_property
    def vetoing(self) -> npt.NDArray[np.bool_]:
        """``[findings]``: True where positive or uncertain forces No Finding to absent."""
        return np.array([n not in (NO_FINDING, SUPPORT_DEVICES) for n in self.names])

    @cached_property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """``[findings, 4]``: the certainties each finding may take (before the veto)."""
        mask = np.ones((len(self.names), len(Certainty)), dtype=bool)
        if self.has_no_finding:
            mask[-1, [Certainty.NEGATIVE, Certainty.UNCERTAIN]] = False
        return mask

    def vetoed(self, labels: LabelArray) -> npt.NDArray[np.bool_]:
        """``[..., findings] -> [...]``: True where No Finding is forced to absent."""
        present = (labels == Certainty.POSITIVE) | (labels == Certainty.UNCERTAIN)
        return (present & self.vetoing).any(axis=-1)

    def consistent(self, labels: LabelArray) -> LabelArray:
        """A copy in which No Finding obeys its two rules."""
        labels = np.array(labels, dtype=np.int8, copy=True)
        if self.has_no_finding:
            last = labels[..., -1]
            last[(last == Certainty.NEGATIVE) | (last == Certainty.UNCERTAIN)] = Certainty.ABSENT
            last[self.vetoed(labels) & (last != SKIP)] = Certainty.ABSENT
        return labels

    def column(self, header: str) -> int | None:
        """The index of the finding that a file's column header names, or None."""
        header = header.strip()
        header = self.aliases.get(header, header)
        return self.names.index(header) if header in self.names else None

    def to_json(self, labels: Sequence[int] | LabelArray) -> str:
        """The model's answer: one compact JSON object, all findings, in the set's order."""
        words = {name: Certainty(int(v)).word for name, v in zip(self.names, labels, strict=True)}
        return json.dumps(words, separators=(",", ":"), ensure_ascii=False)

    def from_json(self, text: str) -> LabelArray | None:
        """Labels of an answer text; None where it is not readable (a format error)."""
        try:
            answer = json.loads(text)
        except ValueError:
            return None
        if not isinstance(answer, dict) or set(answer) != set(self.names):
            return None
        if not all(answer[n] in CERTAINTY_WORDS for n in self.names):
            return None
        return np.array([CERTAINTY_WORDS.index(answer[n]) for n in self.names], dtype=np.int8)

    def json_schema(self) -> dict[str, object]:
        """JSON schema of the answer (for exports and for servers with structured output)."""
        properties = {
            name: {"type": "string", "enum": [w for w, ok in zip(CERTAINTY_WORDS, mask, strict=True) if ok]}
            for name, mask in zip(self.names, self.allowed, strict=True)
        }
        return {
            "type": "object",
            "properties": properties,
            "required": list(self.names),
            "additionalProperties": False,
        }


_PAPER13 = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    NO_FINDING,
)
PAPER13 = FindingSet("paper13", _PAPER13)
CHEXPERT14 = FindingSet("chexpert14", (*_PAPER13[:-1], SUPPORT_DEVICES, NO_FINDING))
FINDING_SETS: Mapping[str, FindingSet] = {s.name: s for s in (PAPER13, CHEXPERT14)}


def findings_option(name: str) -> str:
    """What to give a command for a set of that name: its ``--findings``, for an error message."""
    return f"--findings {name}" if name in FINDING_SETS else f"--findings RECIPE, the recipe of {name}"


def finding_set(name: str) -> FindingSet:
    """The finding set of that name.

    Raises:
        UserError: if there is none.
    """
    if name not in FINDING_SETS:
        raise UserError(f'unknown finding set "{name}": choose one of {", ".join(FINDING_SETS)}')
    return FINDING_SETS[name]


def custom_findings(
    base: FindingSet, phrases: Mapping[str, Sequence[str]], renamed: Mapping[str, str] | None = None
) -> FindingSet:
    """A set with findings of the user's own before Support Devices and No Finding, and others renamed.

    Args:
        phrases: finding -> words for the rule labeler; a name that the set has not is added to it.
        renamed: name in ``base`` -> new name. The old one is still read in files.

    Raises:
        UserError: if a name cannot be used, or what is to be renamed is not there.
    """
    renamed = dict(renamed or {})
    for old in renamed:
        if old not in base.names or old in (NO_FINDING, SUPPORT_DEVICES):
            raise UserError(f'data.rename_findings: "{old}" is no finding of {base.name} that can have another name')
    if not (phrases or renamed):
        return base
    if NO_FINDING in phrases:
        raise UserError(f'data.custom_findings: "{NO_FINDING}" follows from the other findings and takes no phrases')
    names = [renamed.get(name, name) for name in base.names]
    own = {renamed.get(name, name): tuple(words) for name, words in phrases.items()}
    extra = [name for name in own if name not in names]
    for name in (*extra, *renamed.values()):
        if not name.strip() or name != name.strip() or not name.isprintable() or set(name) & set('"\\'):
            raise UserError(f"data: {name!r} cannot name a finding; use printable words without quotes or backslashes")
    for name in extra:
        if base.aliases.get(name) in base.names:
            raise UserError(
                f'data.custom_findings: "{name}" is another name of {base.aliases[name]}, which the set has; '
                "give the phrases to that one, or rename it (data.rename_findings)"
            )
    at = next((i for i, n in enumerate(names) if n in (SUPPORT_DEVICES, NO_FINDING)), len(names))
    aliases = {old: renamed.get(new, new) for old, new in base.aliases.items() if old not in extra} | renamed
    label = "+".join([base.name, *renamed.values(), *extra])
    return FindingSet(label, (*names[:at], *extra, *names[at:]), aliases, own)
