"""Every kind of encoder-decoder that is served says through our engine what it says in transformers alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, MT5Config, T5Config
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from meshgate.runtime.config import ConfigError
from services.generation import seq2seq
from services.generation.config import EngineConfig
from services.generation.engine.interface import Job, Sampling
from services.generation.scheduler.scheduler import Scheduler
from services.generation.scheduler.sequence import GenerationRequest
from services.generation.seq2seq.decoders import DECODERS
from services.generation.text.detokenise import TokenBytes
from tests.kinds.conftest import Tally
from tests.support.fixtures.generation import Heard, Letters
from tests.tinymodels.kinds import VOCABULARY, spread
from tests.tinymodels.seq2seq import build_tiny_marian, build_tiny_t5

PLACES: Final = 48
MOST: Final = 8
T5: Final = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "t5": {},
    "t5 v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "t5 few buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12},
    "t5 deep encoder": {"num_layers": 3, "num_decoder_layers": 1},
}


def made(name: str, folder: Path) -> Any:
    """A tiny random one, float32."""
    if name == "marian":
        return AutoModelForSeq2SeqLM.from_pretrained(build_tiny_marian(folder), attn_implementation="sdpa").eval()
    if name == "t5 as saved":
        return AutoModelForSeq2SeqLM.from_pretrained(build_tiny_t5(folder), attn_implementation="sdpa").eval()
    wanted: Any = MT5Config if name == "mt5" else T5Config
    config = wanted(**T5 | VARIANTS.get(name, {}), decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    torch.manual_seed(3)
    make: Any = AutoModelForSeq2SeqLM.from_config
    return spread(make(config)).eval()


@pytest.mark.parametrize("name", ["t5 as saved", *VARIANTS, "mt5", "marian"])
def test_it_says_what_transformers_says(name: str, tmp_path: Path, tally: Tally) -> None:
    module = made(name, tmp_path)
    model = seq2seq.wrap(module, 3, PLACES, 0, "model")
    scheduler = Scheduler(model, TokenBytes(Letters(), max(model.vocabulary_size, 128)), model.end_tokens, 7)
    chance = random.Random(7)
    asked = [[chance.randrange(3, 80) for _ in range(length)] for length in (40, 3, 17, PLACES, 1)]
    listeners = [Heard() for _ in asked]
    for prompt, listener in zip(asked, listeners, strict=True):
        scheduler.add(GenerationRequest(Job(prompt, MOST, Sampling(temperature=0.0), tenant="a"), listener, 0.0))
    while not scheduler.idle():
        scheduler.step()
    assert [each.tokens[0] for each in listeners] == [alone(module, prompt) for prompt in asked]
    tally("generation, encoder-decoders", module.config.model_type, True)


def alone(module: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "num_beams": 1, "forced_eos_token_id": None, "max_new_tokens": MOST}
    found: list[int] = module.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, 1:].tolist()
    return found


class Named:
    """A configuration of a kind."""

    def __init__(self, kind: str) -> None:
        self.model_type = kind


@pytest.mark.parametrize("kind", sorted(set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES) - set(DECODERS)))
def test_any_other_kind_is_refused_by_its_name(kind: str, tally: Tally) -> None:
    config: Any = Named(kind)
    with pytest.raises(ConfigError, match=rf"^models\.1\.source: this {kind} model is not served"):
        seq2seq.bounded(config, 64, EngineConfig.model_validate({}), "models.1")
    tally("generation, encoder-decoders", kind, False)
