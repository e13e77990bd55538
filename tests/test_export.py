"""Export: merged weights equal the adapter's, the grammar accepts what is consistent and nothing else, checks count."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from lite_chex.cli import app
from lite_chex.errors import UserError
from lite_chex.export import (
    CHECKSUMS,
    GRAMMAR,
    SCHEMA,
    Exported,
    _name_kind_of_bpe,
    export_model,
    find_converter,
    grammar,
    merged_tensors,
    modelfile,
    push,
)
from lite_chex.export_check import check_export, read_answer
from lite_chex.findings import CHEXPERT14, PAPER13, FindingSet
from lite_chex.labelers.llm import merged
from lite_chex.model.adapters import load_adapter, new_adapter, save_adapter
from lite_chex.model.backbone import load_base, load_tokenizer
from lite_chex.prompt import PromptEncoder, user_message
from lite_chex.recipe import Recipe, shipped
from tests.conftest import make_recipe


@pytest.fixture(scope="module")
def tiny_base() -> Path:
    """The shipped tiny base: in one with large random weights, bf16 rounding alone flips many decisions."""
    return shipped("data_samples") / "tiny_base"


def make_stage(recipe: Recipe, seed: int = 1) -> Path:
    """An SFT stage with a random adapter that matters, without training one."""
    folder = recipe.run_dir / "sft"
    folder.mkdir(parents=True)
    backbone = load_base(recipe.model)
    new_adapter(backbone, recipe.model)
    torch.manual_seed(seed)
    for name, parameter in backbone.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05)
    save_adapter(backbone.model, folder)
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stage(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(make_recipe(tiny_base, tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def exported_folder(stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "merged"
    export_model(stage.parent, folder, "vllm")
    return folder


def test_merged_tensors_are_those_of_the_labelers_merge(tiny_base: Path, stage: Path, tiny_recipe: Recipe) -> None:
    backbone = load_base(tiny_recipe.model)
    load_adapter(backbone, stage, "default", trainable=False)
    ours = dict(merged_tensors(backbone.model))
    plain = dict(merged(backbone.model).named_parameters())
    assert set(plain) <= set(ours)
    for name, parameter in plain.items():
        assert torch.equal(ours[name].float(), parameter.float()), name


def test_the_folder_holds_what_serving_needs(exported_folder: Path) -> None:
    assert json.loads((exported_folder / SCHEMA).read_text()) == PAPER13.json_schema()
    config = json.loads((exported_folder / "config.json").read_text())
    assert "quantization_config" not in config
    with safe_open(exported_folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert not list(exported_folder.glob("*.bin"))
    assert (exported_folder / "chat_template.jinja").is_file()
    readme = (exported_folder / "README.md").read_text()
    assert "vllm serve" in readme
    assert user_message(PAPER13, "YOUR REPORT") in json.loads(
        '"' + readme.partition('"content": "')[2].split('"}')[0] + '"'
    )
    assert "needs constrained decoding" in readme  # the tiny recipe trains on decisions alone
    found = subprocess.run(["sha256sum", "-c", CHECKSUMS], cwd=exported_folder, capture_output=True, check=False)
    assert found.returncode == 0


def test_export_overwrites_only_exports(stage: Path, exported_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        export_model(stage, tmp_path)
    assert (tmp_path / "mine.txt").is_file()
    with pytest.raises(UserError, match=r"mine\.txt: a file of that name is there"):
        export_model(stage, tmp_path / "mine.txt")
    with pytest.raises(UserError, match="no adapter there"):
        export_model(tmp_path, tmp_path / "out")


def test_a_recipe_to_check_on_is_looked_for_before_anything_is_written(stage: Path, tmp_path: Path) -> None:
    arguments = ["export", str(stage), "--output", str(tmp_path / "out"), "--check", "nope.yaml"]
    result = CliRunner().invoke(app, arguments)
    assert 'no recipe "nope.yaml"' in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_check_agrees_constrained_and_counts_unreadable_free_answers(
    stage: Path, exported_folder: Path, tiny_base: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    found = check_export(Exported(exported_folder, stage, recipe, False), recipe, limit=10)
    assert found.n == 10
    assert found.readable == 0  # a random adapter writes no JSON
    assert not found.identical
    # bf16 against fp32: only near-ties may fall the other way.
    assert found.worst_margin < 0.2
    assert found.constrained_cells <= 5


def test_check_notices_another_model(stage: Path, exported_folder: Path, tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    other = make_stage(recipe, seed=2)
    found = check_export(Exported(exported_folder, other, recipe, False), recipe, limit=10)
    assert found.constrained_cells > 30
    assert found.worst_margin > 1


def test_read_answer() -> None:
    labels = PAPER13.consistent(np.array([0] * 13))
    text = PAPER13.to_json(labels)
    assert (read_answer(f"<think>\n\n</think>\n\n{text}\n", PAPER13) == labels).all()
    assert read_answer(text[:-1], PAPER13) is None
    assert read_answer(f"Sure: {text}", PAPER13) is None


def as_regex(gbnf: str) -> re.Pattern[str]:
    """The grammar as one regular expression: it has no recursion, so rules can be put in for their names."""
    rules = dict(line.split(" ::= ", 1) for line in gbnf.splitlines())

    def expand(body: str) -> str:
        out = []
        for token in re.findall(r'"(?:\\.|[^"\\])*"|[()|]|\w+', body):
            if token.startswith('"'):
                out.append(re.escape(json.loads(token)))
            elif token == "(":
                out.append("(?:")
            elif token in ")|":
                out.append(token)
            else:
                out.append(f"(?:{expand(rules[token])})")
        return "".join(out)

    return re.compile(expand(rules["root"]))


def test_grammar_accepts_exactly_the_consistent_answers() -> None:
    small = FindingSet("small", ("Edema", "Support Devices", "No Finding"))
    pattern = as_regex(grammar(small))
    for values in itertools.product(range(4), repeat=3):
        labels = np.array(values, dtype=np.int8)
        consistent = (small.consistent(labels) == labels).all()
        assert bool(pattern.fullmatch(small.to_json(labels))) == consistent, values


@pytest.mark.parametrize("findings", [PAPER13, CHEXPERT14, FindingSet("two", ("Edema", "Fracture"))])
def test_grammar_of_whole_sets(findings: FindingSet) -> None:
    pattern = as_regex(grammar(findings, "<think>\n\n</think>\n\n"))
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = findings.consistent(rng.integers(0, 4, len(findings)).astype(np.int8))
        assert pattern.fullmatch("<think>\n\n</think>\n\n" + findings.to_json(labels))
        assert not pattern.fullmatch(findings.to_json(labels))


def test_converter_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"llama\.cpp"):
        export_model(stage, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="--llama-cpp"):
        find_converter(tmp_path)


def test_failing_converter_says_why(tmp_path: Path, stage: Path) -> None:
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("import sys; sys.exit('tokenizer is not known')")
    with pytest.raises(UserError, match="tokenizer is not known"):
        export_model(stage, tmp_path / "out", "gguf", llama_cpp=tmp_path)
    assert (tmp_path / "out" / CHECKSUMS).is_file()  # the merged model is whole, and may be overwritten


def test_gguf_comes_with_a_modelfile(tmp_path: Path, stage: Path) -> None:
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("import sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'wb').write(b'GGUF')")
    made = export_model(stage, tmp_path / "out", "gguf", llama_cpp=script)
    assert made.gguf is not None
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    assert "<|user|>\n{{ .Prompt }}<|end|>\n<|assistant|>" in text
    assert 'PARAMETER stop "<|end|>"' in text
    assert (tmp_path / "out" / GRAMMAR).read_text() == grammar(PAPER13)


def test_the_modelfile_keeps_a_first_token_that_the_tokenizer_does_not_add(tiny_base: Path) -> None:
    """SmolLM2's template begins with its bos token, which neither transformers nor llama.cpp adds."""
    tokenizer = load_tokenizer(str(tiny_base))
    tokenizer.bos_token = "<|user|>"
    assert tokenizer("x")["input_ids"][0] != tokenizer.bos_token_id
    text = modelfile(PromptEncoder(tokenizer, PAPER13), "m.gguf", 448)
    assert 'TEMPLATE """<|user|>\n{{ .Prompt }}' in text
    assert "PARAMETER num_ctx 448\n" in text


@pytest.mark.parametrize(
    ("before", "flag"),
    [
        ({"type": "ByteLevel"}, False),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}, False),
        ({"type": "Metaspace"}, True),
        (None, True),  # SentencePiece as Mistral's file has it
    ],
)
def test_a_byte_level_vocabulary_is_not_called_sentencepiece(
    tmp_path: Path, before: dict[str, object] | None, flag: bool
) -> None:
    file = tmp_path / "tokenizer.json"
    whole = {"pre_tokenizer": before, "model": {"type": "BPE", "byte_fallback": True, "vocab": {"é": 0}}}
    file.write_text(json.dumps(whole))
    _name_kind_of_bpe(file)
    whole["model"]["byte_fallback"] = flag  # type: ignore[index]
    assert json.loads(file.read_text(encoding="utf-8")) == whole


def test_push_needs_the_acknowledgement(exported_folder: Path) -> None:
    with pytest.raises(UserError, match="PhysioNet"):
        push(exported_folder, "someone/model", acknowledged=False)
