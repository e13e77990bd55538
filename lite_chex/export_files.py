"""The text files of an export: the answer's grammar and schema, Ollama's Modelfile, the README, the checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lite_chex.errors import UserError
from lite_chex.findings import FINDING_SETS, Certainty, FindingSet
from lite_chex.labelers.llm import fingerprint_of

if TYPE_CHECKING:
    from lite_chex.decode.template import AnswerTemplate
    from lite_chex.export import Format
    from lite_chex.prompt import PromptEncoder
    from lite_chex.recipe import Recipe

SCHEMA, GRAMMAR, CHECKSUMS = "answer.schema.json", "answer.gbnf", "checksums.sha256"
SHARING = (
    "PhysioNet's data use agreement forbids passing MIMIC text on and has guidelines on sharing models trained on "
    "it: a model can give away what it was trained on"
)


def answer_lead(prompt: PromptEncoder, template: AnswerTemplate) -> str:
    """What the chat template puts between the assistant's mark and the answer (Qwen3: an empty thought)."""
    return str(prompt.tokenizer.decode(list(template.head))).partition("{")[0]


def grammar(findings: FindingSet, lead: str = "") -> str:
    """The answer as GBNF (llama.cpp, vLLM): fixed keys in fixed order, and no contradiction.

    Two chains of rules, before and after a finding that rules "No Finding" out: whatever the grammar accepts
    obeys :meth:`FindingSet.consistent`.
    """

    def text(literal: str) -> str:
        return json.dumps(literal, ensure_ascii=False)

    def words(certainties: Sequence[Certainty]) -> str:
        return " | ".join(text(f'"{c.word}"') for c in certainties)

    lines = ["root ::= " + (f"{text(lead)} " if lead else "") + text("{") + " open0 " + text("}")]
    last = len(findings) - 1
    for i, name in enumerate(findings.names):
        key = text(f'{"," if i else ""}"{name}":')
        allowed = [c for c in Certainty if findings.allowed[i][c]]
        vetoes = findings.has_no_finding and bool(findings.vetoing[i])
        ruling = [c for c in allowed if vetoes and c in (Certainty.POSITIVE, Certainty.UNCERTAIN)]
        quiet = [c for c in allowed if c not in ruling]
        go, closed = ("", "") if i == last else (f" open{i + 1}", f" closed{i + 1}")
        branches = [f"( {words(quiet)} ){go}", *([f"( {words(ruling)} ){closed}"] if ruling else [])]
        lines.append(f"open{i} ::= {key} ( " + " | ".join(branches) + " )")
        if findings.has_no_finding and i:
            left = [Certainty.ABSENT] if i == last else allowed
            lines.append(f"closed{i} ::= {key} ( {words(left)} ){closed}")
    return "\n".join(lines) + "\n"


def modelfile(prompt: PromptEncoder, gguf: str, max_length: int, lead: str = "") -> str:
    """An Ollama Modelfile: the chat template around ``{{ .Prompt }}``, greedy decoding without a penalty on repeated
    words, the end of the turn, and as much context as the model was trained with (Ollama cuts what is longer than its
    own default, without a word).

    lead: :func:`answer_lead`; an answer held to the schema begins after it.
    """
    tokenizer = prompt.tokenizer
    mark = "@@PROMPT@@"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
    )
    text = str(text)
    # llama.cpp adds the first token itself where the tokenizer does. SmolLM2's does not, though its template begins
    # with the same token.
    if tokenizer.bos_token and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id:
        text = text.removeprefix(tokenizer.bos_token)
    return (
        f'FROM ./{gguf}\nTEMPLATE """{text.replace(mark, "{{ .Prompt }}")}{lead}"""\n'
        f"PARAMETER temperature 0\nPARAMETER repeat_penalty 1.0\nPARAMETER num_ctx {max_length}\n"
        f'PARAMETER stop "{tokenizer.eos_token}"\n'
    )


def readme(recipe: Recipe, stage: Path, exportable: bool, format: Format) -> str:
    """What the folder is, how to serve it, and what it must not be used for."""
    from lite_chex import __version__
    from lite_chex.prompt import user_message

    findings = recipe.findings
    base = recipe.model.model_name_or_path
    base = Path(base).name if Path(base).is_dir() else base  # no path of this machine travels with the model
    free = (
        "The adapter was trained on every answer token: the model may decode freely; constrained, every "
        "answer is readable for certain."
        if exportable
        else "**This adapter was trained on the decisions alone (`sft.loss: decisions`): it needs constrained "
        f"decoding** with `{GRAMMAR}`; decoding freely it writes nothing readable, and `{SCHEMA}` leaves it free to "
        "write white space without end."
    )
    message = user_message(findings, "YOUR REPORT")
    ask = json.dumps({"role": "user", "content": message})
    asked = (
        "It was trained on this one user message, with the report in its place and no system message: "
        "ask it the same way.\n\n"
        f'`POST /v1/chat/completions` with\n\n```json\n{{"model": "litechex", "temperature": 0, "messages": [{ask}],\n '
        + ('"structured_outputs": {"grammar": ' if format == "vllm" else '"grammar": ')
        + f"CONTENT OF {GRAMMAR}"
        + ("}}" if format == "vllm" else "}")
        + "\n```\n\nA whole file: `litechex label --labeler openai --own-export . --model litechex --base-url "
        f"http://localhost:{8000 if format == 'vllm' else 8080}/v1 --input reports.csv --output labels.csv`\n"
    )
    room = recipe.model.max_length
    served = {
        "vllm": f"## vLLM\n\nTried with vLLM 0.32 on a CPU.\n\n```\nvllm serve . "
        f"--served-model-name litechex --max-model-len {room}\n```\n\n{asked}",
        "gguf": "## llama.cpp\n\nTried on a CPU.\n\n"
        f"```\nllama-server -m model.gguf -np 4 -c {4 * room}\n```\n\n{asked}\nFor one report:\n\n```\n"
        f"llama-cli -m model.gguf -c {room} --temp 0 --single-turn --grammar-file {GRAMMAR} -p MESSAGE\n```\n\n"
        "## Ollama\n\nNot run by LiteChex's authors, who had no Ollama at hand.\n\n```\nollama create litechex -f "
        f"Modelfile\n```\n\nIts API takes `{SCHEMA}` as `format`"
        + ("" if exportable else ", which does not do for this adapter")
        + ".\n",
        "merged": '## transformers\n\n```python\nAutoModelForCausalLM.from_pretrained(".", dtype="auto")\n```\n',
    }[format]
    return (
        f"# {recipe.name}: {stage.name}, merged\n\nLabels chest X-ray reports: one JSON object, "
        f"{len(findings)} findings, each positive, negative, uncertain or absent. **A research tool, not a medical "
        f"device**; made by LiteChex {__version__} from {base} and the adapter "
        f"{fingerprint_of(stage)}.\n\n{free}\n\n{served}\n## Files\n\n"
        f"- `{GRAMMAR}`: grammar of the answer, which also keeps No Finding consistent; `{SCHEMA}`: its JSON schema.\n"
        "- `config.json` and the tokenizer's files: for transformers >= 5.\n"
        f"- `{CHECKSUMS}`: `sha256sum -c {CHECKSUMS}`. Weights are safetensors; nothing here is a pickle.\n\n"
        f"## Sharing\n\n{SHARING}.\n"
    )


def write_checksums(folder: Path) -> None:
    """``sha256sum``'s format, for every file of the folder."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        lines.append(f"{digest.hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def checksummed(folder: Path) -> set[str]:
    """The files that an export's checksums name."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    return {line.partition("  ")[2] for line in lines}


def findings_of(export: Path) -> FindingSet:
    """The findings that an export answers, in its order; without phrases.

    Raises:
        UserError: if the folder has no schema, or not one that an export wrote.
    """
    file = export / SCHEMA
    try:
        names = tuple(json.loads(file.read_text(encoding="utf-8"))["properties"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--own-export {export}: there is no readable {SCHEMA}; export the model again") from None
    return next((s for s in FINDING_SETS.values() if s.names == names), FindingSet("own export", names))
