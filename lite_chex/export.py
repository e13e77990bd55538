"""What leaves the toolkit: merged 16-bit safetensors, GGUF for Ollama, a folder that vLLM serves.

Merging happens into the dequantised 4-bit weights that the adapter was trained on, not into the original 16-bit
ones. Beside the model lie the GBNF grammar and the JSON schema of the answer. Held to the grammar, any model gives a
readable answer; held to the schema, which leaves white space free, or to nothing, only one whose SFT trained every
answer token.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lite_chex.errors import UserError
from lite_chex.findings import Certainty, FindingSet
from lite_chex.labelers.llm import find_stage, fingerprint_of

if TYPE_CHECKING:
    import torch

    from lite_chex.decode.template import AnswerTemplate
    from lite_chex.prompt import PromptEncoder
    from lite_chex.recipe import Recipe

Format = Literal["merged", "gguf", "vllm"]
FORMATS: tuple[Format, ...] = ("merged", "gguf", "vllm")
SCHEMA, GRAMMAR, CHECKSUMS = "answer.schema.json", "answer.gbnf", "checksums.sha256"
CONVERTER = "convert_hf_to_gguf.py"
SHARING = (
    "PhysioNet's data use agreement forbids passing MIMIC text on and has guidelines on sharing models trained on "
    "it: a model can give away what it was trained on"
)


@dataclass(frozen=True)
class Exported:
    """folder: everything. stage: the adapter it was made from. exportable: trained on every answer token."""

    folder: Path
    stage: Path
    recipe: Recipe
    exportable: bool
    gguf: Path | None = None


def export_model(path: Path, output: Path, format: Format = "merged", *, llama_cpp: Path | None = None) -> Exported:
    """Merge a run's (or folder's) adapter and write the model with everything that serving it needs.

    llama_cpp: llama.cpp's folder or its converter, for ``gguf``.

    Raises:
        UserError: if there is no adapter, the output folder holds something else, or the converter is missing or
            cannot convert this model.
    """
    from lite_chex.decode.template import build_template
    from lite_chex.prompt import PromptEncoder
    from lite_chex.recipe import load_recipe

    stage = find_stage(path)
    converter = find_converter(llama_cpp) if format == "gguf" else None
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: a file of that name is there; name a folder")
    if output.exists() and any(output.iterdir()) and not (output / CHECKSUMS).is_file():
        raise UserError(f"--output {output}: the folder is not empty and no earlier export; name a new one")
    recipe_file = stage / "recipe.yaml"
    if not recipe_file.is_file():
        raise UserError(f"{stage}: recipe.yaml is missing beside the adapter; it says how the model was trained")
    recipe = load_recipe(recipe_file)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    tokenizer = _write_merged(recipe, stage, output)
    prompt = PromptEncoder(tokenizer, recipe.findings)
    template = build_template(prompt)
    schema = json.dumps(recipe.findings.json_schema(), indent=1, ensure_ascii=False)
    (output / SCHEMA).write_text(schema + "\n", encoding="utf-8")
    (output / GRAMMAR).write_text(grammar(recipe.findings, answer_lead(prompt, template)), encoding="utf-8")
    exported = Exported(output, stage, recipe, recipe.sft.loss == "answer")
    (output / "README.md").write_text(readme(exported, format), encoding="utf-8")
    write_checksums(output)  # before the converter: what it fails on is an export all the same
    if converter is not None:
        gguf = output / "model.gguf"
        convert(converter, output, gguf)
        (output / "Modelfile").write_text(modelfile(prompt, gguf.name, recipe.model.max_length), encoding="utf-8")
        exported = replace(exported, gguf=gguf)
        write_checksums(output)
    return exported


def _write_merged(recipe: Recipe, stage: Path, output: Path) -> Any:
    """The merged model in 16 bits with its tokenizer and chat template; returns the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from lite_chex.model.adapters import load_adapter
    from lite_chex.model.backbone import load_base

    backbone = load_base(recipe.model, for_training=False)
    load_adapter(backbone, stage, "default", trainable=False)
    dtype = backbone.causal.dtype if backbone.causal.dtype != torch.float32 else torch.bfloat16
    config = type(backbone.causal.config).from_dict(backbone.causal.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype, config.use_cache = dtype, True
    tensors = {name: tensor.to(dtype) for name, tensor in merged_tensors(backbone.model)}
    # An empty shell takes the tensors over as they are: the model is never in memory twice.
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    missing, unexpected = plain.load_state_dict(tensors, strict=False, assign=True)
    if unexpected or (set(missing) - {"lm_head.weight"}):
        raise AssertionError(f"merged tensors do not fit the model: {missing} {unexpected}")
    plain.tie_weights()
    plain.generation_config = backbone.causal.generation_config
    # Greedy by default: a labeler does not roll dice.
    plain.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    plain.generation_config.eos_token_id = _end_tokens(backbone)
    plain.save_pretrained(output, max_shard_size="4GB")
    backbone.tokenizer.save_pretrained(output)
    _name_kind_of_bpe(output / "tokenizer.json")
    return backbone.tokenizer


def _name_kind_of_bpe(file: Path) -> None:
    """Drop ``byte_fallback`` from a byte-level BPE, where it means nothing.

    llama.cpp's converter tells SentencePiece from GPT-2 by that flag alone. Tokenizers that transformers made out of
    a GGUF carry it on both: the converter then wrote a vocabulary that split every report wrongly, and said nothing.
    """
    whole = json.loads(file.read_text(encoding="utf-8"))
    before = whole.get("pre_tokenizer") or {}
    kinds = {before.get("type"), *(part.get("type") for part in before.get("pretokenizers", []))}
    if "ByteLevel" in kinds and whole["model"].get("byte_fallback"):
        whole["model"]["byte_fallback"] = False
        file.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")


def _end_tokens(backbone: Any) -> list[int]:
    """The model's own end tokens, and the tokenizer's."""
    own = backbone.causal.generation_config.eos_token_id
    found = [own] if isinstance(own, int) else list(own or [])
    return list(dict.fromkeys([*found, backbone.tokenizer.eos_token_id]))


def merged_tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of the merged model, one by one on the CPU: a card that only holds the 4-bit base is enough.

    What a linear layer gets is what :func:`lite_chex.labelers.llm.merged` gives it.
    """
    import bitsandbytes as bnb
    import torch
    from peft.tuners.lora import LoraLayer

    base = model.get_base_model()
    modules: list[tuple[str, Any]] = list(base.named_modules())
    done: set[str] = set()
    with torch.no_grad():
        for name, module in modules:
            adapted = isinstance(module, LoraLayer)
            inner: Any = module.base_layer if adapted else module
            if not isinstance(inner, torch.nn.Linear) or any(name.startswith(f"{d}.") for d in done):
                continue
            weight = inner.weight.data
            state = getattr(inner.weight, "quant_state", None)
            if state is not None:
                weight = bnb.functional.dequantize_4bit(weight, state)
            if adapted:
                weight = weight.float() + module.get_delta_weight("default").float()
            done.add(name)
            yield f"{name}.weight", weight.cpu()
            if inner.bias is not None:
                yield f"{name}.bias", inner.bias.data.cpu()
        for name, parameter in base.named_parameters():
            if not any(name.startswith(f"{d}.") for d in done):
                yield name, parameter.data.cpu()


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


def find_converter(given: Path | None) -> Path:
    """llama.cpp's converter: where ``--llama-cpp`` points, else on the PATH.

    Raises:
        UserError: if it is not there, or its ``gguf`` package is missing.
    """
    if given is not None:
        script = given / CONVERTER if given.is_dir() else given
        if not script.is_file():
            raise UserError(f"--llama-cpp {given}: there is no {CONVERTER}; give llama.cpp's folder or that file")
        return script
    found = shutil.which(CONVERTER)
    if found is None:
        raise UserError(
            f"--format gguf needs llama.cpp's {CONVERTER}: clone github.com/ggml-org/llama.cpp, pip install "
            "sentencepiece (not its requirements.txt, which would replace torch and transformers) and give "
            "--llama-cpp FOLDER"
        )
    return Path(found)


def convert(converter: Path, folder: Path, gguf: Path) -> None:
    """Run llama.cpp's converter on a merged folder.

    Raises:
        UserError: with the converter's last line, if it fails.
    """
    command = [sys.executable, str(converter), str(folder), "--outfile", str(gguf), "--outtype", "auto"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode or not gguf.is_file():
        lines = (found.stderr or found.stdout).strip().splitlines()
        why = lines[-1][:200] if lines else f"exit code {found.returncode}"
        raise UserError(f"{converter.name} could not convert {folder} ({why}); the merged model is kept there")


def modelfile(prompt: PromptEncoder, gguf: str, max_length: int) -> str:
    """An Ollama Modelfile: the chat template around ``{{ .Prompt }}``, greedy decoding, the end of the turn, and as
    much context as the model was trained with (Ollama cuts what is longer than its own default, without a word)."""
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
        f'FROM ./{gguf}\nTEMPLATE """{text.replace(mark, "{{ .Prompt }}")}"""\n'
        f'PARAMETER temperature 0\nPARAMETER num_ctx {max_length}\nPARAMETER stop "{tokenizer.eos_token}"\n'
    )


def readme(exported: Exported, format: Format) -> str:
    """What the folder is, how to serve it, and what it must not be used for."""
    from lite_chex import __version__
    from lite_chex.prompt import user_message

    recipe, findings = exported.recipe, exported.recipe.findings
    base = recipe.model.model_name_or_path
    base = Path(base).name if Path(base).is_dir() else base  # no path of this machine travels with the model
    free = (
        "The adapter was trained on every answer token: the model may decode freely; constrained, every "
        "answer is readable for certain."
        if exported.exportable
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
        + ("" if exported.exportable else ", which does not do for this adapter")
        + ".\n",
        "merged": '## transformers\n\n```python\nAutoModelForCausalLM.from_pretrained(".", dtype="auto")\n```\n',
    }[format]
    return (
        f"# {recipe.name}: {exported.stage.name}, merged\n\nLabels chest X-ray reports: one JSON object, "
        f"{len(findings)} findings, each positive, negative, uncertain or absent. **A research tool, not a medical "
        f"device**; made by LiteChex {__version__} from {base} and the adapter "
        f"{fingerprint_of(exported.stage)}.\n\n{free}\n\n{served}\n## Files\n\n"
        f"- `{GRAMMAR}`: grammar of the answer, which also keeps No Finding consistent; `{SCHEMA}`: its JSON schema.\n"
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


def push(folder: Path, repository: str, *, acknowledged: bool) -> str:
    """Upload an export to a private hub repository; returns its address.

    Raises:
        UserError: without the acknowledgement, or if the hub refuses.
    """
    if not acknowledged:
        raise UserError(f"--push-to-hub: {SHARING}; add --i-may-share-this-model if you may")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        api = HfApi()
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=str(folder))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"--push-to-hub {repository}: the hub refused ({why}); the export is kept in {folder}"
        ) from None
    return str(url)
