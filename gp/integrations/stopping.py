"""Ends generation where an answer holds one of some texts.

transformers' own `stop_strings` works on a tokenizer's vocabulary, not on texts, and fails for one that cannot spell
every word, as the embedded base's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria


class Until(StoppingCriteria):
    """Ends a row as soon as its new tokens hold one of `until`; what stands behind it is cut by the caller.

    Args:
        tokenizer: that reads the new tokens.
        prompt_length: ids before them, padding included.
        until: at least one text, none empty.
    """

    def __init__(self, tokenizer: Any, prompt_length: int, until: Sequence[str]) -> None:
        self.tokenizer, self.prompt_length, self.until = tokenizer, prompt_length, tuple(until)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Which rows are finished: int [B, S] -> bool [B]."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt_length :], skip_special_tokens=True)
        found = [any(end in text for end in self.until) for text in texts]
        return torch.tensor(found, device=input_ids.device)
