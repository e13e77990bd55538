"""A small BERT with random weights and a vocabulary made of the reports: a student's base where no hub is reached.

It is no match for a pretrained encoder on real reports; on short ones of few words it learns a teacher well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

VOCABULARY = 4000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_LENGTH = 512


def make_encoder(texts: Iterable[str], folder: Path) -> None:
    """Write tokenizer and untrained encoder to ``folder``, as transformers loads them.

    Weights are drawn from torch's generator: seed it before.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizer

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(
        texts, vocab_size=VOCABULARY, min_frequency=2, special_tokens=SPECIAL, show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=MAX_LENGTH)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
    )
    tokenizer.save_pretrained(folder)
    BertModel(config).save_pretrained(folder)  # last: config.json says that the folder is complete
