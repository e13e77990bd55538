"""``litechex label --model RUN``: a fine-tuned model behind the labeler protocol, with the decision decoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.decode.temperature import log_probabilities, tempered
from lite_chex.errors import UserError
from lite_chex.findings import FindingSet, LabelArray
from lite_chex.labelers.base import TOO_LONG, LabelBatch

if TYPE_CHECKING:
    from lite_chex.decode.decoder import DecisionDecoder, Decoded
    from lite_chex.decode.temperature import Calibration
    from lite_chex.labelers.rules import RuleLabeler
    from lite_chex.prompt import PromptEncoder

STAGE_ORDER = ("ppo", "dpo", "sft")
ADAPTER_CONFIG = "adapter_config.json"


def find_stage(path: Path) -> Path:
    """The adapter folder that ``--model`` means: itself, or the run's ppo, else dpo, else sft.

    Raises:
        UserError: if there is neither an adapter nor a run, or it is a reward model.
    """
    if (path / ADAPTER_CONFIG).is_file():
        try:
            config = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{path / ADAPTER_CONFIG}: not a JSON file; copy the adapter anew") from None
        if isinstance(config, dict) and config.get("task_type") == "SEQ_CLS":
            raise UserError(f"{path}: a reward model only scores answers; name the run or one of its policies")
        return path
    for name in STAGE_ORDER:
        if (path / name / ADAPTER_CONFIG).is_file():
            return path / name
    raise UserError(f"{path}: no adapter there and no run with a finished {', '.join(STAGE_ORDER)} stage")


def fingerprint_of(folder: Path) -> str:
    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes())
    digest.update((folder / ADAPTER_CONFIG).read_bytes())
    return digest.hexdigest()[:16]


@dataclass
class LLMLabeler:
    """Labels with the decision decoder; drafts come from the rule labeler.

    A report whose prompt does not fit the model's context is an error row: never cut silently. batch: what goes
    through the model at a time, in a line. calibration: temperatures for the probabilities, or None; stale: there
    are some, but of another adapter.
    """

    name: str
    findings: FindingSet
    decoder: DecisionDecoder
    prompt: PromptEncoder
    rules: RuleLabeler | None
    max_length: int
    batch_size: int | None
    beams: int
    model_id: str
    stage: Path
    batch: str
    calibration: Calibration | None = None
    stale: bool = False

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        findings: FindingSet | None = None,
        batch_size: int | None = None,
        beams: int = 1,
        draft: str = "rules",
        merge: bool | None = None,
    ) -> LLMLabeler:
        """Load base and adapter. merge: fold the adapter into the (dequantised) base weights, which is what
        makes small batches fast on a CPU; default: there, and not on a card, whose memory it would cost.

        Raises:
            UserError: if the folder is no adapter, its base cannot be loaded, or the findings differ.
        """
        from lite_chex.decode.budget import fit_batch
        from lite_chex.decode.decoder import DecisionDecoder
        from lite_chex.decode.temperature import Calibration
        from lite_chex.decode.template import build_template
        from lite_chex.labelers.rules import RuleLabeler
        from lite_chex.model.adapters import load_adapter
        from lite_chex.model.backbone import load_base
        from lite_chex.prompt import PromptEncoder
        from lite_chex.recipe import load_recipe

        stage = find_stage(path)
        recipe_file = stage / "recipe.yaml"
        if not recipe_file.is_file():
            raise UserError(f"{stage}: recipe.yaml is missing beside the adapter; it says how the model was trained")
        recipe = load_recipe(recipe_file)
        if findings is not None and findings.names != recipe.findings.names:
            raise UserError(
                f"--findings: this model was trained on {len(recipe.findings)} findings ({recipe.findings.name}); "
                "leave the option out"
            )
        backbone = load_base(recipe.model, for_training=False)
        load_adapter(backbone, stage, "default", trainable=False)
        if merge if merge is not None else backbone.device.type == "cpu":
            backbone.model = merged(backbone.model)
        backbone.model.eval()
        prompt = PromptEncoder(backbone.tokenizer, recipe.findings)
        decoder = DecisionDecoder(backbone, build_template(prompt), prompt.prefix_ids)
        rules = RuleLabeler(recipe.findings) if draft == "rules" else None
        batch_size = batch_size or recipe.label.batch_size
        batch = f"batch: {batch_size} reports a pass, as asked" if batch_size else fit_batch(decoder, recipe.model)
        model_id, calibration = fingerprint_of(stage), Calibration.load(stage)
        stale = calibration is not None and calibration.fingerprint != model_id
        return cls(
            f"llm ({stage.name})",
            recipe.findings,
            decoder,
            prompt,
            rules,
            recipe.model.max_length,
            batch_size,
            beams,
            model_id,
            stage,
            batch,
            None if stale else calibration,
            stale,
        )

    def fingerprint(self) -> str:
        parts = {"model": self.model_id, "beams": self.beams, "findings": self.findings.name}
        if self.calibration:
            parts["temperatures"] = list(self.calibration.temperatures)
        return json.dumps(parts)

    def announce(self, probabilities: bool) -> list[str]:
        """What a user should know before labelling starts."""
        if not probabilities:
            return [self.batch]
        if self.stale:
            honest = "warning: not calibrated, calibration.json is of another adapter; run litechex calibrate again"
        elif self.calibration:
            honest = f"{self.calibration.describe()}; labels are as without"
        else:
            honest = "not calibrated; litechex calibrate RECIPE does it"
        return [self.batch, f"probabilities: {honest}"]

    def label(self, reports: Sequence[str]) -> LabelBatch:
        bodies = self.prompt.body_ids(reports)
        room = self.max_length - len(self.prompt.prefix_ids) - self.decoder.template.max_answer_length
        # The runner tries again on findings and impression where they can be told apart.
        too_long = f"{TOO_LONG} ({self.max_length} tokens of prompt and answer)"
        errors = [too_long if len(body) > room else None for body in bodies]
        fine = [i for i, error in enumerate(errors) if error is None]
        values = np.full((len(reports), len(self.findings)), 3, dtype=np.int8)
        probabilities = np.full((len(reports), len(self.findings), 4), np.nan, dtype=np.float32)
        if fine:
            drafts = self.rules.label([reports[i] for i in fine]).values if self.rules else None
            chosen = [bodies[i] for i in fine]
            decoded = self._decode(chosen, drafts)
            values[fine] = decoded.values
            probabilities[fine] = probabilities_of(decoded.logits, decoded.values, self.findings, self.calibration)
        return LabelBatch(values, probabilities, tuple(errors))

    def _decode(self, bodies: Sequence[Sequence[int]], drafts: LabelArray | None) -> Decoded:
        from lite_chex.decode.beam import beam_search
        from lite_chex.decode.budget import within_memory

        def decode() -> Decoded:
            if self.beams > 1:
                return beam_search(self.decoder, bodies, self.beams, self.batch_size)
            return self.decoder.decode(bodies, drafts, batch_size=self.batch_size)

        return decode() if self.batch_size else within_memory(self.decoder, decode)


def merged(model: Any) -> Any:
    """The adapter ``default`` folded into its base. Layers of a 4-bit base become plain linear ones holding
    the dequantised weights, those that the adapter was trained on, plus the adapter's."""
    import bitsandbytes as bnb
    import torch
    from peft.tuners.lora import Linear4bit

    base = model.get_base_model()
    if not getattr(base, "is_loaded_in_4bit", False):
        return model.merge_and_unload()
    for name, module in list(base.named_modules()):
        if not isinstance(module, (Linear4bit, bnb.nn.Linear4bit)) or ".base_layer" in name:
            continue
        inner: Any = module.base_layer if isinstance(module, Linear4bit) else module
        weight = bnb.functional.dequantize_4bit(inner.weight.data, inner.weight.quant_state).float()
        if isinstance(module, Linear4bit):
            weight = weight + module.get_delta_weight("default").float()
        dtype = inner.compute_dtype or torch.float32
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=inner.bias is not None, dtype=dtype)
        plain.weight.data = weight.to(dtype)
        if inner.bias is not None:
            plain.bias.data = inner.bias.data.to(dtype)
        parent, _, leaf = name.rpartition(".")
        setattr(base.get_submodule(parent), leaf, plain.requires_grad_(False).to(weight.device))
    return base


def probabilities_of(
    logits: np.ndarray, values: np.ndarray, findings: FindingSet, calibration: Calibration | None = None
) -> np.ndarray:
    """``[n, F, 4]`` probabilities over the allowed candidates; a forced decision is certain."""
    log_p = log_probabilities(logits, values, findings)
    return np.exp(tempered(log_p, calibration.temperatures) if calibration else log_p)
