"""From a name and the options of a command line to a labeler; nothing heavy is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from lite_chex.data.records import Report
from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14, PAPER13, FindingSet
from lite_chex.labelers.base import Labeler

LABELERS: tuple[str, ...] = ("rules", "llm", "chexbert", "student", "openai")
CHUNK_SIZES: dict[str, int] = {"rules": 256, "chexbert": 256, "student": 256, "llm": 256, "openai": 128}
"""Reports that the runner hands over at a time: smaller where a report takes long, so that little is redone; for the
llm enough of them that full batches of like length can be made (measured: 64 gave 10 reports a pass, 256 gave 22)."""

WITHOUT_PROBABILITIES: tuple[str, ...] = ("rules", "openai")


@runtime_checkable
class Estimates(Protocol):
    """A labeler that costs money or hours elsewhere and can say beforehand how much."""

    def estimate(self, reports: Iterable[Report]) -> object: ...


@runtime_checkable
class Announces(Protocol):
    """A labeler that made choices which a user should see before it starts."""

    def announce(self, probabilities: bool) -> Sequence[str]: ...


@dataclass(frozen=True)
class ServerOptions:
    """Where the OpenAI-compatible server is, and what it may cost. Prices are per million tokens.

    grammar: of an export's answer (its answer.gbnf): the model is one of ``litechex export``, to be asked with the
    prompt that it was trained on and held to the answer that it was trained to give.
    """

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    retries: int = 6
    may_send: bool = False
    input_price: float | None = None
    output_price: float | None = None
    grammar: str | None = None


@dataclass(frozen=True)
class LabelerOptions:
    """What a labeler may need; each takes what concerns it.

    findings: None leaves the choice to the model (rules: the paper's 13). model: a run or adapter
    folder (llm), a checkpoint (chexbert), a folder (student) or the server's model name (openai).
    """

    model: str | None = None
    findings: FindingSet | None = None
    batch_size: int | None = None
    beams: int = 1
    tokenizer: str | None = None
    server: ServerOptions = field(default_factory=ServerOptions)


def labeler_for_model(model: str) -> str:
    """The labeler that a ``--model`` without ``--labeler`` means: a student folder is known by its file."""
    from lite_chex.labelers.student import STUDENT_FILE

    return "student" if (Path(model) / STUDENT_FILE).is_file() else "llm"


def make_labeler(name: str, options: LabelerOptions) -> Labeler:
    """Build the labeler called ``name``.

    Raises:
        UserError: if there is none of that name, or it lacks an option or a package.
    """
    if name not in LABELERS:
        raise UserError(f'--labeler: there is no labeler "{name}"; choose one of {", ".join(LABELERS)}')
    if name == "rules":
        from lite_chex.labelers.rules import RuleLabeler

        return RuleLabeler(options.findings or PAPER13)
    if options.model is None:
        raise UserError(f"--labeler {name}: --model is missing; give {_MODEL_MEANS[name]}")
    if name in ("llm", "student") and not Path(options.model).is_dir():
        raise UserError(f"--model: there is no folder {options.model}; give {_MODEL_MEANS[name]}")
    if name == "llm":
        from lite_chex.labelers.llm import LLMLabeler

        return LLMLabeler.load(
            Path(options.model), findings=options.findings, batch_size=options.batch_size, beams=options.beams
        )
    batch_size = options.batch_size or 16
    if name == "chexbert":
        from lite_chex.labelers.chexbert import CheXbertLabeler

        return CheXbertLabeler.load(
            Path(options.model),
            findings=options.findings or CHEXPERT14,
            tokenizer=options.tokenizer,
            batch_size=batch_size,
        )
    if name == "student":
        from lite_chex.labelers.student import StudentLabeler

        return StudentLabeler.load(Path(options.model), findings=options.findings, batch_size=batch_size)
    from lite_chex.labelers.openai_compatible import OpenAILabeler

    return OpenAILabeler(options.model, options.findings or PAPER13, options.server)


_MODEL_MEANS: dict[str, str] = {
    "llm": "a run or adapter folder",
    "chexbert": "the path of chexbert.pth",
    "student": "a folder that litechex distill wrote",
    "openai": "the name that the server knows its model by",
}
