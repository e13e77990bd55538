"""What leaves the toolkit: merged 16-bit safetensors, GGUF for Ollama, a folder that vLLM serves.

Merging happens into the dequantised 4-bit weights that the adapter was trained on, not into the original 16-bit
ones. Beside the model lie the GBNF grammar and the JSON schema of the answer. Held to the grammar, any model gives a
readable answer; held to the schema, which leaves white space free, or to nothing, only one whose SFT trained every
answer token.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lite_chex.errors import UserError
from lite_chex.export_files import (
    CHECKSUMS,
    GRAMMAR,
    SCHEMA,
    SHARING,
    answer_lead,
    checksummed,
    grammar,
    modelfile,
    readme,
    write_checksums,
)
from lite_chex.labelers.llm import find_stage
from lite_chex.model.backbone import first_line, load_tokenizer, quiet_libraries

if TYPE_CHECKING:
    import torch

    from lite_chex.recipe import Recipe

Format = Literal["merged", "gguf", "vllm"]
FORMATS: tuple[Format, ...] = ("merged", "gguf", "vllm")
CONVERTER = "convert_hf_to_gguf.py"
SENTENCEPIECE = "tokenizer.model"


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

    It is written into ``.NAME.partial`` beside the output folder and takes that folder's place once it is whole: an
    earlier export stays until then. A folder with a file that no export wrote is refused before anything is done.

    llama_cpp: llama.cpp's folder or its converter, for ``gguf``. Where the converter fails, the merged model is kept,
    unless an earlier export is there.

    Raises:
        UserError: if there is no adapter, the output folder holds something else or cannot be written, or the
            converter is missing or cannot convert this model.
    """
    from lite_chex.decode.template import build_template
    from lite_chex.prompt import PromptEncoder
    from lite_chex.recipe import load_recipe

    stage = find_stage(path)
    converter = find_converter(llama_cpp) if format == "gguf" else None
    with _in_a_sentence(output):
        target = _target(output)
    recipe_file = stage / "recipe.yaml"
    if not recipe_file.is_file():
        raise UserError(f"{stage}: recipe.yaml is missing beside the adapter; it says how the model was trained")
    recipe = load_recipe(recipe_file)
    if target == Path(recipe.model.model_name_or_path).resolve():
        raise UserError(f"--output {output}: the adapter's base model is there; name another folder")
    vocabulary = _sentencepiece(recipe, needed=converter is not None)
    failed, gguf = None, None
    with _in_a_sentence(output), _in_place_of(target) as folder:
        tokenizer = _write_merged(recipe, stage, folder)
        if vocabulary is not None:
            shutil.copyfile(vocabulary, folder / SENTENCEPIECE)
        prompt = PromptEncoder(tokenizer, recipe.findings)
        lead = answer_lead(prompt, build_template(prompt))
        schema = json.dumps(recipe.findings.json_schema(), indent=1, ensure_ascii=False)
        (folder / SCHEMA).write_text(schema + "\n", encoding="utf-8")
        (folder / GRAMMAR).write_text(grammar(recipe.findings, lead), encoding="utf-8")
        exportable = recipe.sft.loss == "answer"
        (folder / "README.md").write_text(readme(recipe, stage, exportable, format), encoding="utf-8")
        if converter is not None:
            gguf = folder / "model.gguf"
            try:
                convert(converter, folder, gguf)
                text = modelfile(prompt, gguf.name, recipe.model.max_length, lead)
                (folder / "Modelfile").write_text(text, encoding="utf-8")
            except UserError as error:
                if target.exists():
                    raise UserError(f"{error}; {output} is as it was") from None
                gguf.unlink(missing_ok=True)
                failed = error
        write_checksums(folder)
    if failed is not None:
        raise UserError(f"{failed}; the merged model is kept in {output}")
    return Exported(output, stage, recipe, exportable, output / gguf.name if gguf else None)


@contextmanager
def _in_a_sentence(output: Path) -> Iterator[None]:
    """A full disk and the like, as an error about ``--output``."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"--output {output}: cannot be written ({first_line(error)})") from None


def _target(output: Path) -> Path:
    """The folder that ``--output`` means, behind any link.

    Raises:
        UserError: if an export cannot take its place, or holds what no export wrote.
    """
    target = output.resolve()
    if target.exists() and not target.is_dir():
        raise UserError(f"--output {output}: a file of that name is there; name a folder")
    if os.path.ismount(target):
        raise UserError(f"--output {output}: a mount point cannot be replaced; name a folder in it")
    if Path.cwd().is_relative_to(target):
        raise UserError(f"--output {output}: the folder that the command runs in cannot be replaced; name another")
    if not target.exists() or not any(target.iterdir()):
        return target
    if not (target / CHECKSUMS).is_file():
        raise UserError(f"--output {output}: the folder is not empty and no earlier export; name a new one")
    files = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_symlink() or not p.is_dir()}
    others = sorted(files - checksummed(target) - {CHECKSUMS})
    if others:
        raise UserError(f"--output {output}: {others[0]} there is of no export; move it away or name a new folder")
    return target


@contextmanager
def _in_place_of(target: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``target`` at the end and is gone if anything goes wrong."""
    partial, old = (target.with_name(f".{target.name}.{word}") for word in ("partial", "old"))
    folder = partial / target.name  # llama.cpp's converter calls the model as its folder
    if old.exists() and not target.exists():  # an earlier command was killed between the last two renames
        old.rename(target)
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    if target.exists() and not any(target.iterdir()):
        target.rmdir()  # what cannot be replaced, such as a bind mount, fails here and not after the merge
    try:
        folder.mkdir(parents=True)
        yield folder
        if target.exists():
            target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sentencepiece(recipe: Recipe, *, needed: bool) -> Path | None:
    """The base's ``tokenizer.model``, where its tokenizer is SentencePiece's.

    transformers never writes that file. Without it llama.cpp's converter gives every token the same score, and the
    GGUF splits reports otherwise than in training.

    Raises:
        UserError: if it is needed and the base has none.
    """
    from transformers.utils import cached_file

    quiet_libraries()
    base = recipe.model.model_name_or_path
    tokenizer: Any = load_tokenizer(base, recipe.model.trust_remote_code)
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    if not whole["model"].get("byte_fallback") or _is_byte_level(whole):
        return None
    try:
        found = cached_file(
            base,
            SENTENCEPIECE,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError as error:
        raise UserError(f'model "{base}": its {SENTENCEPIECE} cannot be read ({first_line(error)})') from None
    if found is None and needed:
        raise UserError(
            f"--format gguf: {base} has no {SENTENCEPIECE}, without which llama.cpp splits reports otherwise than in "
            "training; put that file beside its tokenizer.json"
        )
    return Path(found) if found is not None else None


def _write_merged(recipe: Recipe, stage: Path, output: Path) -> Any:
    """The merged model in 16 bits with its tokenizer and chat template; returns the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

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
    # Fresh, and greedy: a labeler does not roll dice, and a base's repetition_penalty, which vLLM applies, would turn
    # an answer that repeats the same four words.
    plain.generation_config = GenerationConfig(
        bos_token_id=backbone.causal.generation_config.bos_token_id,
        eos_token_id=_end_tokens(backbone),
        pad_token_id=backbone.tokenizer.pad_token_id,
        do_sample=False,
    )
    plain.save_pretrained(output, max_shard_size="4GB")
    _name_rope_theta(output / "config.json")
    backbone.tokenizer.save_pretrained(output)
    _name_kind_of_bpe(output / "tokenizer.json")
    return backbone.tokenizer


def _name_kind_of_bpe(file: Path) -> None:
    """Drop ``byte_fallback`` from a byte-level BPE, where it means nothing.

    llama.cpp's converter tells SentencePiece from GPT-2 by that flag alone. Tokenizers that transformers made out of
    a GGUF carry it on both: the converter then wrote a vocabulary that split every report wrongly, and said nothing.
    """
    whole = json.loads(file.read_text(encoding="utf-8"))
    if whole["model"].get("byte_fallback") and _is_byte_level(whole):
        whole["model"]["byte_fallback"] = False
        file.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")


def _is_byte_level(whole: dict[str, Any]) -> bool:
    """Whether a tokenizer.json's tokens are GPT-2's bytes, not SentencePiece's text."""
    kinds = set()
    for part, parts in (("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")):
        found = whole.get(part) or {}
        kinds |= {found.get("type"), *(one.get("type") for one in found.get(parts, []))}
    return "ByteLevel" in kinds


def _name_rope_theta(file: Path) -> None:
    """Name ``rope_theta`` at the top of config.json too, where programs look that do not know transformers 5's
    ``rope_parameters``: they would take 10,000."""
    config = json.loads(file.read_text(encoding="utf-8"))
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None:
        file.write_text(json.dumps(config | {"rope_theta": theta}, indent=2) + "\n", encoding="utf-8")


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


def find_converter(given: Path | None) -> Path:
    """llama.cpp's converter: where ``--llama-cpp`` points, else on the PATH.

    Raises:
        UserError: if it is not there, or its ``gguf`` package is missing.
    """
    if given is not None:
        script = given / CONVERTER if given.is_dir() else given
        if not script.is_file():
            raise UserError(f"--llama-cpp {given}: there is no {CONVERTER}; give llama.cpp's folder or that file")
    else:
        found = shutil.which(CONVERTER)
        if found is None:
            raise UserError(
                f"--format gguf needs llama.cpp's {CONVERTER}: clone github.com/ggml-org/llama.cpp, pip install "
                "sentencepiece (not its requirements.txt, which would replace torch and transformers) and give "
                "--llama-cpp FOLDER"
            )
        script = Path(found)
    if importlib.util.find_spec("gguf") is None and not (script.parent / "gguf-py").is_dir():
        raise UserError(f"{script} needs the package gguf: pip install gguf, or give all of llama.cpp as --llama-cpp")
    return script


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
        raise UserError(f"{converter.name} could not convert the merged model ({why})")


def push(folder: Path, repository: str, *, acknowledged: bool) -> str:
    """Upload an export to a private hub repository; returns its address.

    Raises:
        UserError: without the acknowledgement, or if the repository is public, or the hub refuses or cannot be
            reached.
    """
    if not acknowledged:
        raise UserError(f"--push-to-hub: {SHARING}; add --i-may-share-this-model if you may")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        api = HfApi()
        url = api.create_repo(repository, private=True, exist_ok=True)
        # One that was there before stays as public as it was.
        private = api.repo_info(url.repo_id).private
        if private:
            api.upload_folder(repo_id=url.repo_id, folder_path=str(folder))
    except (httpx.HTTPError, HFValidationError, OSError, ValueError) as error:
        raise UserError(
            f"--push-to-hub {repository}: the hub refused or cannot be reached ({first_line(error)}); "
            f"the export is kept in {folder}"
        ) from None
    if not private:
        raise UserError(
            f"--push-to-hub {repository}: this repository is public; make it private or name a new one; "
            f"the export is kept in {folder}"
        )
    return str(url)
