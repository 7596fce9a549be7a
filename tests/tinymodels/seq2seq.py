"""Random T5 and Marian models of a few hundred KB, with SentencePiece-like vocabularies trained on the fly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

PLACES: Final = 96
"""What the tiny Marian takes, as input and as output."""
_PIECES: Final = 300
_TEXTS: Final = [
    "translate English to German: the house is wonderful and the little dog is lazy",
    "summarize: a model of a few hundred kilobytes reads a long text and writes a short one",
    "Das Haus ist wunderbar. Ein naïves Café, ¿verdad? 0123456789 {}[],:'\"",
]
_Fast: Any = PreTrainedTokenizerFast  # transformers leaves these untyped
_T5: Any = T5Tokenizer
_T5Config: Any = T5Config


def build_tiny_t5(directory: Path) -> Path:
    """Starts with its pad token, 0, and ends with 1. Texts end with 1, too."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *_pieces()]
    tokeniser = _T5(vocab=pieces, extra_ids=4, model_max_length=512)
    tokeniser.save_pretrained(directory)
    config = _T5Config(
        vocab_size=-(-len(tokeniser) // 8) * 8,
        d_model=48,
        d_kv=12,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=40,
        decoder_start_token_id=0,
    )
    _save(T5ForConditionalGeneration, config, directory, {"relative": 2.0, "shared": 0.1, "": 0.2})
    return directory


def build_tiny_marian(directory: Path, **more: Any) -> Path:
    """Starts with its pad token, the last one, never makes it, and ends with 0. Texts end with 0, too. `more` goes into
    its configuration.
    """
    pieces = [("</s>", 0.0), ("<unk>", 0.0), *_pieces(), ("<pad>", 0.0)]
    pad = len(pieces) - 1
    tokeniser = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokeniser.pre_tokenizer = pre_tokenizers.Metaspace()
    tokeniser.decoder = decoders.Metaspace()
    tokeniser.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    _Fast(tokenizer_object=tokeniser, eos_token="</s>", unk_token="<unk>", pad_token="<pad>").save_pretrained(directory)
    config = MarianConfig(
        vocab_size=len(pieces),
        d_model=48,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=PLACES,
        scale_embedding=True,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        **more,
    )
    _save(
        MarianMTModel, config, directory, {"shared": 0.3, "q_proj": 0.8, "k_proj": 0.8, "": 0.3}, bad_words_ids=[[pad]]
    )
    return directory


def _save(kind: Any, config: Any, directory: Path, spreads: Mapping[str, float], **settings: Any) -> None:
    """Random weights, the same each time. `spreads` are standard deviations by parts of weights' names; with these,
    found by trying, outputs differ from one input to the next and from one token to the next.
    """
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = kind(config)
        for name, weights in model.named_parameters():
            if weights.requires_grad and weights.dim() > 1:
                torch.nn.init.normal_(weights, std=next(spreads[part] for part in spreads if part in name))
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(directory)


def _pieces() -> list[tuple[str, float]]:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(_TEXTS, trainers.UnigramTrainer(vocab_size=_PIECES, show_progress=False))
    vocabulary = sorted(trained.get_vocab().items(), key=lambda each: each[1])
    return [(piece, -float(place) / 20 - 1) for place, (piece, _) in enumerate(vocabulary)]
