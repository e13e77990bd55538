"""Builds the tiny base model that ``litechex demo`` fine-tunes: a 2M-parameter Llama that can read reports.

It is trained in full, as a language model, on synthetic reports and on finding the sentence that mentions
something. It never sees a certainty: labels are what SFT and RLHF teach. Shipped in ``data_samples/tiny_base``
because pre-training takes longer than the whole demo; ``python -m lite_chex.model.tiny_base OUT`` makes it anew.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from lite_chex.findings import CERTAINTY_WORDS, CHEXPERT14

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def build_tokenizer(texts: list[str], vocab_size: int = 2048):  # type: ignore[no-untyped-def]
    """Byte-level BPE; each forced span of the answer is one token, so an answer has about 28."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [w for w in CERTAINTY_WORDS for _ in range(1000)]
    tokenizer.train_from_iterator([*texts, *words], trainer)
    names = CHEXPERT14.names
    spans = [f'{{"{names[0]}":"', *(f'","{n}":"' for n in names[1:]), '"}']
    tokenizer.add_tokens([AddedToken(s, normalized=False) for s in spans])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def pretrain(
    out: Path,
    *,
    steps: int = 6000,
    batch_size: int = 32,
    texts: int = 60_000,
    hidden_size: int = 192,
    layers: int = 4,
    learning_rate: float = 2e-3,
    seed: int = 20_000,
    log_every: int = 200,
) -> None:
    """Train tokenizer and model from nothing and write them to ``out`` (bf16 safetensors)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lite_chex.data.synthetic import base_corpus, reading_corpus
    from lite_chex.prompt import user_message

    torch.manual_seed(seed)
    corpus = list(base_corpus(texts // 2, seed))
    tokenizer = build_tokenizer([*corpus[:8000], user_message(CHEXPERT14, "")] + [user_message(CHEXPERT14, "")] * 50)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 48,
        num_key_value_heads=hidden_size // 48,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).train()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f}M parameters, {len(tokenizer)} tokens", flush=True)
    bos, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    corpus += [_layout(tokenizer, *row) for row in reading_corpus(texts - len(corpus), seed)]
    ids = [[bos, *tokenizer(t, add_special_tokens=False)["input_ids"], end][:256] for t in corpus]
    # Batches of similar length: most of a padded batch would be padding.
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    generator = torch.Generator().manual_seed(seed)
    started, tokens = time.time(), 0
    for step in range(steps):
        if step % len(batches) == 0:
            shuffled = torch.randperm(len(batches), generator=generator).tolist()
        rows = [ids[i] for i in batches[shuffled[step % len(batches)]]]
        width = max(map(len, rows))
        x = torch.tensor([r + [tokenizer.pad_token_id] * (width - len(r)) for r in rows])
        loss = model(
            input_ids=x,
            attention_mask=(x != tokenizer.pad_token_id).long(),
            labels=x.masked_fill(x == tokenizer.pad_token_id, -100),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tokens += int((x != tokenizer.pad_token_id).sum())
        if step % log_every == 0:
            print(f"step {step} loss {loss.item():.3f} {tokens / (time.time() - started):.0f} tok/s", flush=True)
    _renew_unseen(model, {i for row in ids for i in row})
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _layout(tokenizer: Any, report: str, mentions: dict[str, str]) -> str:
    """The reading task in the answer's layout: behind each finding's key the start of its sentence, no certainty."""
    from lite_chex.prompt import user_message

    chat = [{"role": "user", "content": user_message(CHEXPERT14, report)}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    # Either finding set: with and without Support Devices (the parity of the length is as good as a coin).
    names = [n for n in CHEXPERT14.names if n != "Support Devices" or len(report) % 2]
    cells = [f'"{n}":"' + " ".join(mentions.get(n, "none").split()[:9]) + '"' for n in names]
    return text + "{" + ",".join(cells) + "}"


def _renew_unseen(model: Any, seen: set[int]) -> None:
    """Give tokens that the corpus never showed (the answer's) fresh random embeddings.

    Training pushes all of them in one direction, away from every context; left so, the four certainties
    would be one and the same vector, which no adapter can tell apart.
    """
    import torch

    weight = model.get_input_embeddings().weight.data
    unseen = torch.tensor([i for i in range(len(weight)) if i not in seen])
    deviation = weight[sorted(seen)].std()
    generator = torch.Generator().manual_seed(0)
    weight[unseen] = torch.randn(len(unseen), weight.shape[1], generator=generator) * deviation


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    pretrain(arguments.out, steps=arguments.steps, batch_size=arguments.batch_size)
