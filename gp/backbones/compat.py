"""Names that differ between the transformers versions in gp's window, each found once by looking at the library.

No other file of gp knows about versions.
"""

from __future__ import annotations

from transformers.modeling_outputs import CausalLMOutputWithPast

# Name of the KV cache in every forward, every output and `generate`; 5.24 renamed it.
CACHE: str = next(name for name in ("cache", "past_key_values") if name in CausalLMOutputWithPast.__dataclass_fields__)
