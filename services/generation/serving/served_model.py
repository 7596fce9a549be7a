"""The models that a process serves, as its servicers see them."""

from __future__ import annotations

from dataclasses import dataclass

from meshgate.v1 import models_pb2
from services.generation.adapters import LoadedAdapters
from services.generation.constraints import Grammars
from services.generation.engine.interface import Engine
from services.generation.model.prefix_cache import PrefixCache
from services.generation.scheduler.row_limit import RowLimit
from services.generation.serving.admission import Admission
from services.generation.serving.limits import Limits
from services.generation.text.prompt import PromptReader
from services.models.model_table import ModelSlot, ModelTable
from services.text.preparing import PreparationQueue


class FinaliserToken:
    """A token that a model and its calls hold. When the last of them lets go, the model's engine ends.

    See EngineFactory in services/generation/engine/engine_factory.py.
    """


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model, and everything that its calls pass."""

    engine: Engine
    prompts: PromptReader
    limits: Limits
    admission: Admission
    row_limit: RowLimit
    tokenising: PreparationQueue
    card: models_pb2.Model
    finaliser: FinaliserToken
    grammars: Grammars | None
    """None for a model without an end token: its output can't be constrained."""
    adapters: LoadedAdapters | None = None
    prefixes: PrefixCache | None = None


ServedModels = ModelSlot[ModelTable[ServedModel]]
"""The slot that holds the loaded models, empty until they are loaded."""
