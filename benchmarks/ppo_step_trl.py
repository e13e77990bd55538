"""One PPO iteration of TRL 1.12.0's PPOTrainer, run by ppo_step.py in TRL's own environment.

As TRL's PEFT example does it: the policy is a LoRA whose disabled adapter is the reference; reward and value are
sequence classifiers of their own (``value: lora`` puts a LoRA on the value model too, which TRL does not do).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from peak_memory import PeakMemory


def lora(job: dict[str, Any], task: str) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=job["lora_r"], lora_alpha=job["lora_alpha"], lora_dropout=0.0, target_modules=job["target_modules"],
        task_type=task, modules_to_save=["score"] if task == "SEQ_CLS" else None,
    )  # fmt: skip


def arguments(job: dict[str, Any]) -> Any:
    """Rollouts, epochs, minibatches and rows per pass as ours; no checkpointing, no evaluation, no samples shown."""
    from trl.experimental.ppo import PPOConfig

    rows, total = job["rows_per_pass"], job["rollouts"]
    return PPOConfig(
        output_dir=job["output_dir"], per_device_train_batch_size=rows, gradient_accumulation_steps=total // rows,
        local_rollout_forward_batch_size=rows, num_mini_batches=job["num_mini_batches"],
        num_ppo_epochs=job["num_ppo_epochs"], total_episodes=total * job["iterations"],
        response_length=job["answer_length"], temperature=job["temperature"], kl_coef=job["kl_coef"],
        num_sample_generations=0, gradient_checkpointing=job["gradient_checkpointing"], bf16=False,
        learning_rate=job["learning_rate"], report_to="none", save_strategy="no", disable_tqdm=True, seed=0,
    )  # fmt: skip


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import torch
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PrinterCallback,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOTrainer

    logging.disable(logging.WARNING)
    torch.set_num_threads(job["threads"])
    dtype = getattr(torch, job["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    tokenizer.pad_token_id = job["pad"]
    policy = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype)
    memory = PeakMemory(policy)

    def classifier() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(
            job["model"], num_labels=1, dtype=dtype, pad_token_id=job["pad"]
        )

    reward, value = classifier().requires_grad_(False), classifier()
    if job["value"] == "lora":
        value = get_peft_model(value, lora(job, "SEQ_CLS"))
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer = PPOTrainer(
        args=arguments(job), processing_class=tokenizer, model=policy, ref_model=None, reward_model=reward,
        value_model=value, train_dataset=Dataset.from_list([{"input_ids": p} for p in job["prompts"]]),
        peft_config=lora(job, "CAUSAL_LM"), callbacks=[Clock()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train()
    seconds = [b - a for a, b in zip([started, *ends], ends)]
    result = {"seconds": seconds, **memory.measured()}
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
