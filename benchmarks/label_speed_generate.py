"""transformers' ``generate``, free or constrained by xgrammar: the peers of label_speed.py.

Also runs as a worker in an environment that has torch, transformers and xgrammar but not LiteChex.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], least: int, most: int, processor: Any = None
) -> tuple[list[str], int]:
    """Greedy answers to prompts padded on the left, of ``least`` to ``most`` tokens; texts and tokens per row."""
    import torch

    width = max(len(p) for p in prompts)
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), do_sample=False, num_beams=1,
            min_new_tokens=least, max_new_tokens=most, pad_token_id=tokenizer.pad_token_id, use_cache=True,
            logits_processor=None if processor is None else [processor],
        )  # fmt: skip
    answers = out[:, width:]
    return tokenizer.batch_decode(answers, skip_special_tokens=True), answers.shape[1]


class Constrained:
    """``generate`` under xgrammar's logits processor for a JSON schema; the grammar is compiled once."""

    def __init__(self, model: Any, tokenizer: Any, schema: dict[str, Any]) -> None:
        import xgrammar

        self.model, self.tokenizer = model, tokenizer
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=model.config.vocab_size)
        compiler = xgrammar.GrammarCompiler(info)
        # Without white space, as LiteChex answers: every further token would cost a forward pass.
        self.compiled = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))

    def run(self, prompts: Sequence[Sequence[int]], most: int) -> tuple[list[str], int]:
        from xgrammar.contrib.hf import LogitsProcessor

        return generate(self.model, self.tokenizer, prompts, 0, most, LogitsProcessor(self.compiled))


def main() -> None:
    """Worker: ``python label_speed_generate.py JOB.json``, then one question a line."""
    from peer_env import serve

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.pad_token_id = job["pad"]
    model.generation_config.eos_token_id = job["eos"]
    peer = Constrained(model, tokenizer, job["schema"])

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        texts, tokens = peer.run(question["prompts"], question["most"])
        return {"seconds": time.perf_counter() - started, "texts": texts, "tokens": tokens}

    serve(answer)


if __name__ == "__main__":
    main()
