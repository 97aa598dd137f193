"""What trained parts say of the base that they belong to."""

from __future__ import annotations

from typing import Any

from gp.backbones import Backbone
from gp.backbones.fingerprint import adapter_fingerprint, fingerprint
from gp.backbones.host import hooked_device
from gp.runs.differences import ADAPTER, FINGERPRINT


def base_shape(backbone: Backbone) -> dict[str, Any]:
    """Facts that a base must share with the one that the parts were trained on."""
    return {
        "model_type": backbone.model_type,
        "num_layers": backbone.num_layers,
        "hidden_size": backbone.hidden_size,
        "num_heads": backbone.num_heads,
        "vision_hidden_size": backbone.vision_hidden_size,
    }


def base_facts(backbone: Backbone) -> dict[str, Any]:
    """The same, a fingerprint of its weights, and one of its adapter's if it has one."""
    facts = {**base_shape(backbone), FINGERPRINT: fingerprint(backbone.model)}
    adapter = adapter_fingerprint(backbone.model)
    return {**facts, ADAPTER: adapter} if adapter else facts


def is_outline(backbone: Backbone) -> bool:
    """Whether the base has sizes alone, and no weights in memory (see `gp.loading.outline`)."""
    embeddings = backbone.text_model.embed_tokens
    return embeddings.weight.is_meta and hooked_device(embeddings) is None  # with a hook they are offloaded
