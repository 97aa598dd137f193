"""gp: dynamic visual-token pruning for large vision-language models."""

from gp.model import Answer, GlimpseModel, from_pretrained
from gp.types import PruneOptions
from gp.version import __version__

__all__ = ["Answer", "GlimpseModel", "PruneOptions", "__version__", "from_pretrained"]
