"""Which class of transformers reads a checkpoint, and which of its tensors no answer depends on."""

from __future__ import annotations

from typing import Any, Final

from transformers import AutoModel, AutoModelForTextEncoding

from meshgate.runtime.config import ConfigError

_ENCODER_ALONE: Final = frozenset({"t5", "mt5", "umt5", "t5gemma"})
"""Kinds with a decoder of which sentence-transformers, and so we, run the encoder alone."""
_BOTH: Final = frozenset({"bart", "mbart", "mvp", "plbart", "bigbird_pegasus", "led"})
"""Kinds of which it runs both, and pools what the decoder says."""

HEADS: Final = (
    r"^(cls|predictions|generator_\w+|discriminator_\w+|vocab_\w+|pred_layer|lm_loss|mlm\w*|nsp\w*)\.",
    r"^(lm_head|embed_out|classifier|pre_classifier|classification_head|qa_outputs|score|out_head|head|dropout)\.",
    r"^(logits_proj|sequence_summary|final_logits_bias|decoder_head)(\.|$)",
)
"""Patterns of tensors of what may stand on an encoder, which is used without it."""
DECODERS: Final = (r"^decoder\.",)
"""The same of a decoder beside it."""


def encoder(config: Any, key: str) -> Any:
    """The class that loads an encoder. Raises ConfigError for a kind that is not served."""
    kind = config.model_type
    if kind in _ENCODER_ALONE:
        config.is_encoder_decoder = False
        return AutoModelForTextEncoding
    if getattr(config, "is_encoder_decoder", False) and kind not in _BOTH:
        raise ConfigError(f"{key}.source: a model of kind {kind} is not served: it has an encoder and a decoder")
    return AutoModel


def unused(config: Any) -> tuple[str, ...]:
    """Patterns of the tensors that an encoder leaves out."""
    return (*HEADS, *DECODERS) if config.model_type in _ENCODER_ALONE else HEADS
