"""Export: merged weights equal the adapter's, the grammar accepts what is consistent and nothing else, checks count."""

from __future__ import annotations

import csv
import itertools
import json
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from typer.testing import CliRunner

from lite_chex.cli import app
from lite_chex.cli.export import _check
from lite_chex.errors import UserError
from lite_chex.export import (
    Exported,
    _name_kind_of_bpe,
    export_model,
    find_converter,
    merged_tensors,
    push,
)
from lite_chex.export_check import check_export, read_answer
from lite_chex.export_files import CHECKSUMS, GRAMMAR, SCHEMA, findings_of, grammar, modelfile, write_checksums
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


LEAD = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def sentencepiece_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as Mistral's is, with what Qwen3's template puts before an answer, and sampling of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("sentencepiece")
    with (shipped("data_samples") / "reports_train.csv").open(encoding="utf-8") as file:
        texts = [user_message(PAPER13, row["report"]) for row in itertools.islice(csv.DictReader(file), 200)]
    rng = np.random.default_rng(0)
    texts += [PAPER13.to_json(rng.integers(0, 4, 13)) for _ in range(500)]
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<think>", "</think>"]
    trained = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Metaspace("▁"), pre_tokenizers.Punctuation(), pre_tokenizers.Split("\n", "isolated")]
    )
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1500, special_tokens=special + byte_tokens))
    whole = json.loads(trained.to_str())
    whole["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    parts = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}]
    parts += [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    whole["decoder"] = {"type": "Sequence", "decoders": parts}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    whole["added_tokens"] = [{"id": i, "content": t, "special": True, **plain} for i, t in enumerate(special)]
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(b"the pieces and their scores")
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
        "{% else %}" + LEAD + "{{ m.content + eos_token }}{% endif %}{% endfor %}"
    )
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config |= {"chat_template": template, "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1500, bos_token_id=1, eos_token_id=2, **size))
    model.save_pretrained(folder)
    sampling = {"bos_token_id": 1, "eos_token_id": [2, 4], "do_sample": True, "min_p": 0.1, "repetition_penalty": 1.1}
    (folder / "generation_config.json").write_text(json.dumps(sampling))
    return folder


@pytest.fixture(scope="module")
def sentencepiece_stage(sentencepiece_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(make_recipe(sentencepiece_base, tmp_path_factory.mktemp("runs")))


def fake_converter(folder: Path, code: str) -> Path:
    """llama.cpp's folder, as far as an export looks into it."""
    (folder / "gguf-py").mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text(code)
    return folder


WRITES = "import sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'wb').write(b'GGUF ' + sys.argv[1].encode())"


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
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000
    with safe_open(exported_folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert not list(exported_folder.glob("*.bin"))
    assert (exported_folder / "chat_template.jinja").is_file()
    readme = (exported_folder / "README.md").read_text()
    assert "vllm serve" in readme
    assert "transformers >= 5" in readme
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


def test_a_file_of_no_export_is_not_deleted(stage: Path, exported_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(exported_folder, folder)
    (folder / "mine-q4.gguf").write_text("x")
    with pytest.raises(UserError, match=r"mine-q4\.gguf there is of no export"):
        export_model(stage, folder)
    (folder / "mine-q4.gguf").unlink()
    (folder / "README.md").write_text("old")
    export_model(stage, folder)
    assert (folder / "README.md").read_text() != "old"


def test_an_export_does_not_replace_its_own_base(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    write_checksums(base)  # as of an export that another adapter was trained on
    stage = make_stage(make_recipe(base, tmp_path / "runs"))
    with pytest.raises(UserError, match="the adapter's base model is there"):
        export_model(stage, base)


def test_what_fails_leaves_the_earlier_export_and_nothing_else(
    stage: Path, exported_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(exported_folder, folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # a disk that is full before the weights are written
    try:
        with pytest.raises(UserError, match=r"--output .*out: cannot be written \("):
            export_model(stage, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert subprocess.run(["sha256sum", "-c", "--quiet", CHECKSUMS], cwd=folder, check=False).returncode == 0
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .*Not a directory"):
        export_model(stage, tmp_path / "file" / "out")


def test_a_killed_export_is_done_again_by_the_same_command(stage: Path, exported_folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial" / "out").mkdir(parents=True)
    (tmp_path / ".out.partial" / "out" / "config.json").touch()
    # Killed after the earlier export was moved away: it is in its place again until this one is whole.
    shutil.copytree(exported_folder, tmp_path / ".out.old")
    llama_cpp = fake_converter(tmp_path / "llama.cpp", "import sys; sys.exit('no')")
    with pytest.raises(UserError, match="out is as it was"):
        export_model(stage, tmp_path / "out", "gguf", llama_cpp=llama_cpp)
    assert (tmp_path / "out" / CHECKSUMS).read_text() == (exported_folder / CHECKSUMS).read_text()
    export_model(stage, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama.cpp", "out"]


def test_output_may_be_a_link_but_no_mount_point_nor_the_current_folder(
    stage: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export_model(stage, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / CHECKSUMS).is_file()
    with pytest.raises(UserError, match="--output /: a mount point"):
        export_model(stage, Path("/"))
    monkeypatch.chdir(tmp_path / "real")
    with pytest.raises(UserError, match="the folder that the command runs in"):
        export_model(stage, Path("."))
    with pytest.raises(UserError, match="not empty"):
        export_model(stage, tiny_base)


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


def test_the_converter_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)  # as where it is not installed
    script = fake_converter(tmp_path, WRITES) / "convert_hf_to_gguf.py"
    assert find_converter(tmp_path) == find_converter(script) == script
    (tmp_path / "gguf-py").rmdir()
    with pytest.raises(UserError, match="pip install gguf"):
        find_converter(script)


def test_failing_converter_says_why(tmp_path: Path, stage: Path) -> None:
    llama_cpp = fake_converter(tmp_path / "llama.cpp", WRITES + "; sys.exit('tokenizer is not known')")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"tokenizer is not known.*the merged model is kept in .*out$"):
        export_model(stage, out, "gguf", llama_cpp=llama_cpp)
    assert (out / "model.safetensors").is_file()
    assert not (out / "model.gguf").exists()
    assert (out / CHECKSUMS).is_file()  # the merged model is whole, and may be overwritten
    (out / "README.md").write_text("of the export before")
    with pytest.raises(UserError, match=r"tokenizer is not known.*out is as it was"):
        export_model(stage, out, "gguf", llama_cpp=llama_cpp)
    assert (out / "README.md").read_text() == "of the export before"


def test_gguf_comes_with_a_modelfile(tmp_path: Path, stage: Path) -> None:
    script = fake_converter(tmp_path / "llama.cpp", WRITES) / "convert_hf_to_gguf.py"
    made = export_model(stage, tmp_path / "out", "gguf", llama_cpp=script)
    assert made.gguf == tmp_path / "out" / "model.gguf"
    assert made.gguf.read_text().endswith("/out")  # the converter calls the model as its folder
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    assert "<|user|>\n{{ .Prompt }}<|end|>\n<|assistant|>" in text
    assert 'PARAMETER stop "<|end|>"' in text
    assert "PARAMETER repeat_penalty 1.0\n" in text
    assert (tmp_path / "out" / GRAMMAR).read_text() == grammar(PAPER13)
    assert "model.gguf" in (tmp_path / "out" / CHECKSUMS).read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama.cpp", "out"]


def test_a_sentencepiece_model_comes_with_its_scores_and_a_lead(tmp_path: Path, sentencepiece_stage: Path) -> None:
    llama_cpp = fake_converter(tmp_path / "llama.cpp", WRITES)
    out = tmp_path / "out"
    export_model(sentencepiece_stage, out, "gguf", llama_cpp=llama_cpp)
    assert (out / "tokenizer.model").read_bytes() == b"the pieces and their scores"
    assert f'[/INST]{LEAD}"""' in (out / "Modelfile").read_text()
    assert (out / GRAMMAR).read_text().startswith(f"root ::= {json.dumps(LEAD)} ")


def test_gguf_of_a_sentencepiece_model_needs_its_scores(tmp_path: Path, sentencepiece_base: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(sentencepiece_base, base)
    (base / "tokenizer.model").unlink()
    stage = make_stage(make_recipe(base, tmp_path / "runs"))
    llama_cpp = fake_converter(tmp_path / "llama.cpp", WRITES)
    with pytest.raises(UserError, match=r"--format gguf: .*base has no tokenizer\.model"):
        export_model(stage, tmp_path / "out", "gguf", llama_cpp=llama_cpp)
    assert not (tmp_path / "out").exists()
    export_model(stage, tmp_path / "out")  # other programs read tokenizer.json


def test_the_bases_sampling_does_not_travel(tmp_path: Path, sentencepiece_stage: Path) -> None:
    export_model(sentencepiece_stage, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert not {"repetition_penalty", "min_p", "temperature"} & set(found)
    assert (found["do_sample"], found["bos_token_id"], found["eos_token_id"]) == (False, 1, [2, 4])
    assert isinstance(found["pad_token_id"], int)


def test_check_counts_prompts_that_servers_split_otherwise(
    tmp_path: Path, sentencepiece_base: Path, sentencepiece_stage: Path, stage: Path, exported_folder: Path
) -> None:
    """SentencePiece's report begins with a space where it is tokenised alone, and in the middle of a prompt not."""
    recipe = make_recipe(sentencepiece_base, tmp_path)
    exported = export_model(sentencepiece_stage, tmp_path / "out")
    said = StringIO()
    _check(exported, [recipe], 5, Console(file=said, width=300))
    assert "a chat endpoint splits 5 of 5 prompts otherwise" in said.getvalue()
    said = StringIO()
    _check(Exported(exported_folder, stage, recipe, False), [recipe], 5, Console(file=said, width=300))
    assert "a chat endpoint" not in said.getvalue()


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


class Hub(ThreadingHTTPServer):
    """The hub's side: a repository that may have been there before, and what was asked of it."""

    def __init__(self, private: bool) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.private = private
        self.asked: list[str] = []


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.answer(409, {"error": "there already", "url": "http://127.0.0.1/someone/model"})
        else:
            self.answer(403, {"error": "no room"})

    def do_GET(self) -> None:
        self.answer(200, {"_id": "1", "id": "someone/model", "private": self.server.private})

    def answer(self, status: int, body: dict[str, object]) -> None:
        self.server.asked.append(self.path)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is no place for it."""


@pytest.fixture(params=[False, True])
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    with Hub(request.param) as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_nothing_is_uploaded_to_a_repository_that_is_public_already(hub: Hub, exported_folder: Path) -> None:
    expected = "the hub refused .*kept in" if hub.private else "this repository is public.*kept in"
    with pytest.raises(UserError, match=expected):
        push(exported_folder, "someone/model", acknowledged=True)
    assert hub.asked[:2] == ["/api/repos/create", "/api/models/someone/model"]
    assert bool(hub.asked[2:]) == hub.private


def test_push_without_a_network_says_where_the_export_is(
    exported_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(UserError, match=f"cannot be reached .*the export is kept in {exported_folder}"):
            push(exported_folder, "someone/model", acknowledged=True)


def test_findings_of_an_export(exported_folder: Path, tmp_path: Path) -> None:
    assert findings_of(exported_folder) is PAPER13
    own = FindingSet("any", ("Scoliosis", "Edema", "No Finding"))
    (tmp_path / SCHEMA).write_text(json.dumps(own.json_schema()))
    assert findings_of(tmp_path).names == own.names
    (tmp_path / SCHEMA).write_text("[]")
    with pytest.raises(UserError, match=r"no readable answer\.schema\.json"):
        findings_of(tmp_path)
