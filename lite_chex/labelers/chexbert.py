"""CheXbert (Smit et al., EMNLP 2020, arXiv:2004.09167): the official checkpoint in a transformers BERT.

The checkpoint (``chexbert.pth``) holds ``{"model_state_dict": {"module.bert.…", "module.linear_heads.i.…"}}``:
a BERT encoder and, on its [CLS] vector, 13 heads of 4 classes (blank, positive, negative, uncertain) and
a last one of 2 (blank, positive) for No Finding. Labels are the official ones: No Finding is what its head
says, also where another finding contradicts it.

What differs from the official program: it cuts reports after 512 tokens without a word; here such a
report is an error row, or is labelled on findings and impression where the input tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14, FindingSet
from lite_chex.labelers.base import LabelBatch
from lite_chex.labelers.committed import file_digest
from lite_chex.labelers.encoder import FORBIDDEN, device, label_batch, length_errors, logits_in_buckets, token_ids

if TYPE_CHECKING:
    import torch
    from transformers import BertModel

HEADS = (*(4,) * 13, 2)
_FROM_OFFICIAL = {4: (1, 2, 3, 0), 2: (1, None, None, 0)}
"""Per head size: which official class is our positive, negative, uncertain and absent."""


class CheXbertLabeler:
    """Labels with an official-layout checkpoint. Build it with :meth:`load`."""

    name = "chexbert"

    def __init__(
        self,
        bert: BertModel,
        heads: torch.nn.ModuleList,
        tokenizer: Any,
        findings: FindingSet,
        batch_size: int,
        digest: str,
    ) -> None:
        self.findings, self.batch_size, self.digest = findings, batch_size, digest
        self._device = device()
        self._bert, self._heads, self._tokenizer = bert.eval().to(self._device), heads.to(self._device), tokenizer
        self._columns = [CHEXPERT14.index(name) for name in findings.names]

    @classmethod
    def load(
        cls, path: Path, *, findings: FindingSet = CHEXPERT14, tokenizer: str | None = None, batch_size: int = 16
    ) -> CheXbertLabeler:
        """Load a checkpoint; the encoder's sizes are read off its tensors.

        Args:
            tokenizer: folder or hub name of bert-base-uncased's vocabulary; None looks beside the
                checkpoint (``vocab.txt``) and then into the local hub cache, and asks no hub.

        Raises:
            UserError: if the file is no such checkpoint, the vocabulary is not found or does not fit, or
                a finding is not one of CheXpert's 14.
        """
        unknown = [name for name in findings.names if name not in CHEXPERT14.names]
        if unknown:
            raise UserError(f'--findings: CheXbert has no finding "{unknown[0]}"; it knows CheXpert\'s 14')
        if not path.is_file():
            raise UserError(f"{path}: no such file; --model takes the official chexbert.pth")
        import torch

        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            state = {str(k).removeprefix("module."): v for k, v in checkpoint["model_state_dict"].items()}
        except Exception as error:  # torch raises half a dozen kinds for a file that is something else
            raise UserError(
                f'{path}: not a CheXbert checkpoint (a torch file with "model_state_dict" of plain tensors is expected)'
            ) from error
        bert, heads = _model(path, state)
        loaded = _tokenizer(path, tokenizer)
        if len(loaded) != bert.config.vocab_size:
            raise UserError(
                f"--tokenizer: its vocabulary has {len(loaded)} words and {path.name} wants {bert.config.vocab_size}; "
                "the official checkpoint goes with bert-base-uncased"
            )
        return cls(bert, heads, loaded, findings, batch_size, file_digest(path))

    def label(self, reports: Sequence[str]) -> LabelBatch:
        # The official program joins lines with blanks before it tokenizes.
        ids = token_ids(self._tokenizer, [re.sub(r"\s+", " ", text).strip() for text in reports])
        errors = length_errors(ids, self._bert.config.max_position_embeddings)
        kept = [i for i in range(len(ids)) if errors is None or errors[i] is None]
        logits = np.zeros((len(ids), len(HEADS), 4), dtype=np.float32)
        logits[kept] = logits_in_buckets(
            [ids[i] for i in kept],
            self._forward,
            (len(HEADS), 4),
            pad_id=self._tokenizer.pad_token_id,
            batch_size=self.batch_size,
        )
        return label_batch(logits[:, self._columns], self.findings, errors, constrained=False)

    def fingerprint(self) -> str:
        return f"chexbert sha256:{self.digest}"

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits ``[b, 14, 4]`` in Certainty's order; classes that No Finding has not are forbidden."""
        import torch

        ids, mask = ids.to(self._device), mask.to(self._device)
        cls_vector = self._bert(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        out = torch.full((len(ids), len(HEADS), 4), FORBIDDEN, device=self._device)
        for i, head in enumerate(self._heads):
            official = head(cls_vector)
            for ours, theirs in enumerate(_FROM_OFFICIAL[HEADS[i]]):
                if theirs is not None:
                    out[:, i, ours] = official[:, theirs]
        return out


def _model(path: Path, state: Mapping[str, Any]) -> tuple[BertModel, torch.nn.ModuleList]:
    """Encoder and heads of a state dict, every tensor in its place."""
    import torch
    from transformers import BertConfig, BertModel

    try:
        vocabulary, hidden = state["bert.embeddings.word_embeddings.weight"].shape
        layers = 1 + max(int(m[1]) for k in state if (m := re.match(r"bert\.encoder\.layer\.(\d+)\.", k)))
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden // 64),  # 64 per head, as in every BERT that Google released
            intermediate_size=state["bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
            max_position_embeddings=state["bert.embeddings.position_embeddings.weight"].shape[0],
        )
        bert = BertModel(config)
        heads = torch.nn.ModuleList([torch.nn.Linear(hidden, size) for size in HEADS])
        # Older versions of transformers also saved the position numbers, which are no weights.
        weights = {k.removeprefix("bert."): v for k, v in state.items() if k.startswith("bert.")}
        bert.load_state_dict({k: v for k, v in weights.items() if k != "embeddings.position_ids"})
        prefix = "linear_heads."
        heads.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    except (AttributeError, KeyError, ValueError, RuntimeError) as error:  # Attribute: not even a tensor
        raise UserError(
            f"{path}: not a CheXbert checkpoint (it wants a BERT encoder, 13 heads of 4 classes and one of 2)"
        ) from error
    return bert, heads


def _tokenizer(checkpoint: Path, name: str | None) -> Any:
    from transformers import AutoTokenizer, BertTokenizer

    if name is None and (checkpoint.parent / "vocab.txt").is_file():
        return BertTokenizer(vocab=str(checkpoint.parent / "vocab.txt"), do_lower_case=True)
    try:
        # Only a name that the user gave may go to the hub; the default looks into the local cache.
        local = name is None or Path(name).is_dir()
        return AutoTokenizer.from_pretrained(name or "bert-base-uncased", local_files_only=local)
    except (OSError, ValueError) as error:
        where = f'"{name}" was not found' if name else "bert-base-uncased's vocabulary is not on this machine"
        raise UserError(
            f"--tokenizer: {where}; give a folder with its tokenizer, or put vocab.txt beside {checkpoint.name}"
        ) from error
