"""Splitting a loaded model by transformers' own plan for it."""

from __future__ import annotations

from typing import Any

from transformers.distributed.configuration_utils import DistributedConfig

from meshgate.runtime.config import ConfigError


def shard(module: Any, size: int) -> Any:
    """The part of `module` that belongs to this rank, on its device. The ranks must have met.

    The model is loaded whole in main memory first and each layer's part then moved, so that a device never holds more
    than its part. (transformers' own sharded loading would spare the memory of the host, and needs `accelerate`.)
    Raises ConfigError for a model that can't be split so.
    """
    _check_heads(module.config.get_text_config(), size)
    try:
        settings, device, mesh = type(module).prepare_distribute_model(DistributedConfig(tp_size=size))
        module.tp_plan = _plan(module)
        module = type(module).maybe_distribute_model(module, settings, mesh)
    except ValueError as error:
        raise ConfigError("engine.tensor_parallel: transformers has no plan for this model") from error
    return module.to(device).eval()


def _check_heads(text: Any, size: int) -> None:
    """Attention is split by heads; a head in two halves would be another model."""
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(text, name, None)
        if heads is not None and heads % size:
            raise ConfigError(f"engine.tensor_parallel: {size} does not divide the model's {heads} {name}")


def _plan(module: Any) -> dict[str, str]:
    """The model's plan. Where input and output share their table both keep it whole: it can't be split two ways."""
    plan: dict[str, str] = dict(module.tp_plan)
    if not module.config.get_text_config().tie_word_embeddings:
        return plan
    shared = (module.get_input_embeddings(), module.get_output_embeddings())
    whole = {name for name, part in module.named_modules() if any(part is each for each in shared)}
    return {name: style for name, style in plan.items() if name not in whole}
