"""gp: dynamic visual-token pruning for large vision-language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gp.version import __version__
from gp.window import warn_outside

if TYPE_CHECKING:
    from gp.answer import Answer
    from gp.loading import from_pretrained
    from gp.model import GlimpseModel
    from gp.types import PruneOptions
    from gp.wrapping import prune, unwrap

__all__ = ["Answer", "GlimpseModel", "PruneOptions", "__version__", "from_pretrained", "prune", "unwrap"]

# Looked up when asked for, so that programs that only handle data start without transformers, which takes seconds.
_HOMES = {
    "Answer": "gp.answer",
    "GlimpseModel": "gp.model",
    "PruneOptions": "gp.types",
    "from_pretrained": "gp.loading",
    "prune": "gp.wrapping",
    "unwrap": "gp.wrapping",
}

warn_outside()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
