"""What users ask of the plug-in: a method, a budget and a seed; for the whole engine, or for one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gp.config.fitting import nearest
from gp.selection import known_counts
from gp.types import PruneOptions, VisualLayout

KEY = "visual_pruning"  # in hf_overrides, in a request's mm_processor_kwargs, and among an image's tensors
# they see the image and nothing else, and the number of tokens that they keep is known before the image is
METHODS = ("none", "random", "downsample", "divprune", "visionzip")
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Settings:
    """How images are pruned.

    Args:
        method: one of `METHODS`.
        budget: share of an image's visual tokens that are kept, in (0, 1]; at least one token is.
        seed: for `random`; the same seed keeps the same tokens of an image.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    method: str = "none"
    budget: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"{KEY}: method must be one of {', '.join(METHODS)}, got {self.method!r}; methods that look at the "
                "question or prune inside the decoder do not fit into vLLM"
            )
        try:
            self.options()
        except ValueError as error:
            raise ValueError(f"{KEY}: budget must be in (0, 1], got {self.budget!r}") from error
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"{KEY}: seed must be a whole number in 0..{MAX_SEED}, got {self.seed!r}")

    def but(self, given: Any, where: str) -> Settings:
        """The same with what a user gives.

        Args:
            given: a mapping of fields to values; None: nothing.
            where: it was given, for messages.

        Raises:
            ValueError: no mapping, or a key that there is not.
        """
        if given is None:
            return self
        if not isinstance(given, Mapping):
            raise ValueError(f"{where}: {KEY} must be a mapping such as {{'method': 'divprune'}}, got {given!r}")
        known = [field.name for field in fields(self)]
        if unknown := [key for key in given if key not in known]:
            raise ValueError(
                f"{where}: {KEY} has no {unknown[0]!r}; the nearest known one is {nearest(str(unknown[0]), known)!r}"
            )
        return replace(self, **given)

    def options(self) -> PruneOptions:
        """As gp's engine takes them: each image has a budget of its own, because vLLM encodes it apart."""
        return PruneOptions(fixed_keep_ratio=self.budget, budget_scope="image")

    def count(self, height: int, width: int) -> int:
        """Tokens kept of an image of so many visual tokens; all with `none`."""
        if self.method == "none":
            return height * width
        layout = VisualLayout(grids=((height, width),), rows=(0,), num_prompts=1)
        counts = known_counts(layout, self.options())
        assert counts is not None  # the budget is exact, and there are no anchors
        return counts[0]


def of_engine(config: Any) -> Settings:
    """Settings in a model's config, where `hf_overrides` put them.

    Raises:
        ValueError: none, or wrong ones.
    """
    given = getattr(config, KEY, None)
    if given is None:
        raise ValueError(f"hf_overrides: {KEY} is missing; expected {{'method': ..., 'budget': ...}}")
    return Settings().but(given, "hf_overrides")


def of_request(default: Settings, kwargs: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Settings of one request, and what is left of its `mm_processor_kwargs`; raises like `Settings.but`."""
    rest = dict(kwargs)
    return default.but(rest.pop(KEY, None), "mm_processor_kwargs"), rest
