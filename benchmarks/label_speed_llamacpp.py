"""llama.cpp's server with the answer's GBNF grammar: a peer of label_speed.py, run in its own environment.

Writes the same weights as GGUF (Llama architecture, byte-level BPE), then serves them: with the server binary
given, else with the one in xllamacpp's wheel. Prompts go in as token ids; a batch is so many requests at once,
one per slot, and a slot keeps the instruction's KV cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from peer_env import PeerError, answers, free_port, serve

TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def write_gguf(folder: Path, out: Path, dtype: str) -> None:
    """A transformers folder as GGUF; matrices in ``dtype``, vectors in fp32.

    Raises:
        ValueError: if it is no Llama with rotary embeddings of the plain kind.
    """
    import gguf
    import numpy as np

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0), "rope_type": "default"}
    if config["model_type"] != "llama" or rope["rope_type"] != "default":
        raise ValueError(f"this benchmark writes plain Llamas as GGUF, not {config['model_type']}")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, folder, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    kind = gguf.GGMLQuantizationType[TYPES[dtype]]
    turned = {"q_proj.weight": heads, "k_proj.weight": kv_heads}
    for file in sorted(folder.glob("*.safetensors")):
        for key, tensor in _tensors(file):
            count = next((n for end, n in turned.items() if key.endswith(end)), 0)
            if count:  # llama.cpp rotates neighbouring pairs, transformers the two halves of a head
                pairs = tensor.reshape(count, 2, head_dim // 2, tensor.shape[1])
                tensor = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(tensor.shape)
            name = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise SystemExit(f"{file}: GGUF has no name for the tensor {key}")
            one = gguf.GGMLQuantizationType.F32 if tensor.ndim == 1 else kind
            writer.add_tensor(name, gguf.quants.quantize(tensor, one), raw_dtype=one)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(file: Path) -> Iterator[tuple[str, Any]]:
    """Names and fp32 arrays of a safetensors file; NumPy has no bf16, whose bits are fp32's upper half."""
    import numpy as np
    from safetensors import deserialize

    for key, entry in deserialize(file.read_bytes()):
        if entry["dtype"] == "BF16":
            flat = (np.frombuffer(entry["data"], np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            flat = np.frombuffer(entry["data"], {"F16": np.float16, "F32": np.float32}[entry["dtype"]])
        yield key, flat.astype(np.float32).reshape(entry["shape"])


def _add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    import gguf

    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = [f"[unused{i}]" for i in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * len(tokens)
    for token, i in whole["model"]["vocab"].items():
        tokens[i], kinds[i] = token, gguf.TokenType.NORMAL
    for added in whole["added_tokens"]:
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")  # prompts come as ids: how text would be cut does not matter here
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in whole["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


class LlamaServer:
    """A server with ``slots`` slots of ``context`` tokens each. ``features``: what its CPU code was built for."""

    def __init__(self, gguf: Path, binary: str | None, threads: int, slots: int, context: int) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if binary:
            port = free_port()
            self.address = f"http://127.0.0.1:{port}"
            command = [binary, "-m", str(gguf), "--port", str(port), "-np", str(slots), "-c", str(slots * context),
                       "-t", str(threads), "-tb", str(threads)]  # fmt: skip
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)
            self.features = f"{Path(binary).name}, built for this machine"
        else:
            import xllamacpp

            params = xllamacpp.CommonParams()
            params.model.path = str(gguf)
            params.n_parallel, params.n_ctx = slots, slots * context
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
            self._server = xllamacpp.Server(params)
            self.address = self._server.listening_address
            found = [f.split("=")[0].strip() for f in xllamacpp.get_system_info().partition(":")[2].split("|")]
            self.features = f"xllamacpp's wheel: {' '.join(f for f in found if f)}"
        if not answers(f"{self.address}/health", 120.0, self._process):
            raise PeerError("llama.cpp's server did not come up")

    def run(self, prompts: Sequence[Sequence[int]], most: int, grammar: str) -> tuple[list[str], int]:
        """Answers, and the most tokens that one of them has."""

        def complete(prompt: Sequence[int]) -> dict[str, Any]:
            body = {"prompt": list(prompt), "n_predict": most, "temperature": 0, "grammar": grammar}
            request = urllib.request.Request(
                f"{self.address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=3600) as reply:
                return json.load(reply)  # type: ignore[no-any-return]

        with ThreadPoolExecutor(len(prompts)) as pool:
            found = list(pool.map(complete, prompts))
        return [f["content"] for f in found], max(f["tokens_predicted"] for f in found)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def main() -> None:
    """Worker: ``python label_speed_llamacpp.py JOB.json``, then one question a line."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    gguf = Path(job["gguf"])
    write_gguf(Path(job["model"]), gguf, job["dtype"])
    server = LlamaServer(gguf, job["binary"], job["threads"], job["slots"], job["context"])

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        texts, tokens = server.run(question["prompts"], question["most"], job["grammar"])
        return {
            "seconds": time.perf_counter() - started, "texts": texts, "tokens": tokens, "features": server.features
        }  # fmt: skip

    try:
        serve(answer)
    finally:
        server.close()


if __name__ == "__main__":
    main()
