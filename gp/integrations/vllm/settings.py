"""What users ask of the plug-in: a method, a budget and a seed; for the whole engine, or for one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gp.config.fitting import nearest
from gp.selection import known_counts
from gp.types import PruneOptions, VisualLayout

KEY = "visual_pruning"  # in hf_overrides, in a request's mm_processor_kwargs, and among an image's tensors
GLIMPSE = "glimpse"  # the method that is given the question, and the key of its trained parts
# the number of tokens that they keep is known before the image is; all but the last see the image and nothing else
METHODS = ("none", "random", "downsample", "divprune", "visionzip", GLIMPSE)
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Settings:
    """How images are pruned.

    Args:
        method: one of `METHODS`.
        budget: share of an image's visual tokens that are kept, in (0, 1]; at least one token is.
        seed: for `random`; the same seed keeps the same tokens of an image.
        glimpse: trained parts of the method of that name: a folder, a hub id, or "tiny"; of the whole engine.

    Raises:
        ValueError: a value of another type or outside its range, or `glimpse` without its parts.
    """

    method: str = "none"
    budget: float = 1.0
    seed: int = 0
    glimpse: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"{KEY}: method must be one of {', '.join(METHODS)}, got {self.method!r}; other methods that look "
                "at the question or prune inside the decoder do not fit into vLLM"
            )
        if self.glimpse is not None and not isinstance(self.glimpse, str):
            raise ValueError(f"{KEY}: glimpse must be a folder, a hub id or 'tiny', got {self.glimpse!r}")
        if self.method == GLIMPSE and self.glimpse is None:
            raise ValueError(
                f"{KEY}: method 'glimpse' needs trained parts: give their folder or hub id as glimpse in hf_overrides"
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
    given = rest.pop(KEY, None)
    if isinstance(given, Mapping) and GLIMPSE in given:
        raise ValueError(f"mm_processor_kwargs: {KEY}.glimpse is the engine's, whose model loads it: see hf_overrides")
    return default.but(given, "mm_processor_kwargs"), rest
