"""A random Llama of a few hundred KB, with a byte-level BPE tokeniser and a chat template, made on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 20
CONTEXT = 256
VOCABULARY = 320
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_Fast: Any = PreTrainedTokenizerFast  # transformers leaves it untyped
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "a model of a few hundred kilobytes",
    "我喜欢编程。 naïve café",
]


def build_tiny_llama(directory: Path) -> Path:
    """Writes the model and its tokeniser to `directory` and returns it. The same seed gives the same weights."""
    directory.mkdir(parents=True, exist_ok=True)
    _tokeniser().save_pretrained(directory)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        _model().save_pretrained(directory)
    return directory


def _tokeniser() -> PreTrainedTokenizerFast:
    tokeniser = Tokenizer(models.BPE())
    tokeniser.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokeniser.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokeniser.train_from_iterator(_TEXTS, trainer)
    fast: PreTrainedTokenizerFast = _Fast(
        tokenizer_object=tokeniser, bos_token=_SPECIAL[1], eos_token=_SPECIAL[2], pad_token=_SPECIAL[0]
    )
    fast.chat_template = TEMPLATE
    return fast


def _model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,  # large enough for outputs that differ from one prompt to the next
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        dtype="float32",
    )
    return LlamaForCausalLM(config)
