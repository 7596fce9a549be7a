"""Random tiny BERTs of a few hundred KB with a word-piece tokeniser, the same each time."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_POSITIONS = 64


def build_tiny_bert(directory: Path) -> Path:
    """An encoder of 32 dimensions that takes 64 tokens, with sentence-transformers' files beside it."""
    torch.manual_seed(1)
    _save_tokeniser(directory)
    BertModel(_config()).save_pretrained(directory)
    pooling = directory / "1_Pooling"
    pooling.mkdir(exist_ok=True)
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return directory


def build_tiny_classifier(directory: Path) -> Path:
    """A classifier of three labels that takes one text or two."""
    torch.manual_seed(2)
    _save_tokeniser(directory)
    config = _config(num_labels=3, id2label={0: "red", 1: "green", 2: "blue"})
    BertForSequenceClassification(config).save_pretrained(directory)
    return directory


def build_tiny_tagger(directory: Path) -> Path:
    """A classifier of tokens, with CoNLL's labels; random weights large enough that texts get several of them."""
    torch.manual_seed(3)
    _save_tokeniser(directory)
    labels = dict(enumerate(("O", "B-PER", "I-PER", "B-LOC", "I-LOC")))
    BertForTokenClassification(_config(num_labels=5, id2label=labels, initializer_range=0.5)).save_pretrained(directory)
    return directory


def build_tiny_reranker(directory: Path) -> Path:
    """A RoBERTa that says with one number how well two texts go together: no token types, positions from 2."""
    torch.manual_seed(4)
    _save_tokeniser(directory, most=1_000_000)
    sizes = _config(num_labels=1, id2label={0: "relevance"}, initializer_range=0.5).to_dict()
    sizes |= {"model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": _POSITIONS}
    RobertaForSequenceClassification(RobertaConfig(**sizes)).save_pretrained(directory)
    return directory


def _config(**more: Any) -> BertConfig:
    return BertConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=_POSITIONS,
        **more,
    )


def _vocabulary() -> dict[str, int]:
    letters = string.ascii_lowercase + string.digits
    pieces = [*_SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters)]
    return {piece: index for index, piece in enumerate(pieces)}


def _save_tokeniser(directory: Path, most: int = _POSITIONS) -> None:
    tokeniser = Tokenizer(WordPiece(_vocabulary(), unk_token="[UNK]"))
    tokeniser.normalizer = BertNormalizer()
    tokeniser.pre_tokenizer = BertPreTokenizer()
    tokeniser.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    wrap: Any = PreTrainedTokenizerFast
    wrap(
        tokenizer_object=tokeniser,
        model_max_length=most,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    ).save_pretrained(directory)
