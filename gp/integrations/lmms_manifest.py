"""What lmms-eval reads of the entry point group `lmms_eval.models`: the name `gp`, and where its class is.

lmms-eval reads it whenever it is imported, so nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The `ModelManifest` of `lmms-eval --model gp`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="gp", chat_class_path="gp.integrations.lmms_eval.GlimpseChat")
