"""Unusable samples are skipped, but never silently: counted by reason, logged, and bounded."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from gp.data.sample import BadSample

log = logging.getLogger(__name__)

# Below this many samples the bound allows as many skips as it would for so many: two bad samples among the first
# fifty say nothing yet, while a broken data set still stops after 1000 * max_skipped_fraction samples.
PATIENCE = 1000
LOGGED_EACH = 10


class SkipCounter:
    """Counts good and bad samples of one pass.

    Args:
        max_fraction: bad / all samples tolerated, in [0, 1].
        option: what sets it, for messages.
        logged_each: so many of a reason are logged each, later ones now and then: a log stays readable.
    """

    def __init__(self, max_fraction: float, option: str = "data.max_skipped_fraction", logged_each: int = LOGGED_EACH):
        self.logged_each = logged_each
        self.max_fraction = max_fraction
        self.option = option
        self.seen = 0
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, BadSample] = {}
        self.mended: Counter[str] = Counter()  # what was put right in good samples

    @property
    def skipped(self) -> int:
        return self.reasons.total()

    def good(self, count: int = 1) -> None:
        self.seen += count

    def bad(self, error: BadSample, count: int = 1) -> None:
        """Counts what cannot be used for one reason: a sample, or `count` questions about an image.

        Raises ValueError with the summary if these are too many for any full pass; see `PATIENCE`.
        """
        before = self.reasons[error.reason]
        self.seen += count
        self.reasons[error.reason] += count
        self.examples.setdefault(error.reason, error)
        after = before + count
        if before < self.logged_each or before.bit_length() < after.bit_length():  # then at 16, 32, 64, ...
            what = "sample" if count == 1 else f"{count} samples"
            log.warning("skipped %s (number %d for this reason): %s", what, after, error)
        self._check(max(self.seen, PATIENCE))

    def add_earlier(self, reasons: Mapping[str, int]) -> None:
        """Bad samples of a part of the pass that another process made, reason -> count; not logged again."""
        for reason, count in reasons.items():
            self.seen += count
            self.reasons[reason] += count
            self.examples.setdefault(reason, BadSample(reason, "in an earlier part of this pass"))

    def finish(self, total: int) -> None:
        """Call at the end of a pass over `total` samples; ValueError with the summary if too many of them were bad.

        One rank of several sees a share only, and so few of a small split that one bad sample is a large fraction of
        them: what it skipped is held against the whole split.
        """
        self._check(total)

    def summary(self) -> str:
        """Reasons with their counts and one example each, most frequent first."""
        parts = [f"{count} x {reason}, e.g. {self.examples[reason]}" for reason, count in self.reasons.most_common()]
        return f"{self.skipped} of {self.seen} samples skipped" + (": " + "; ".join(parts) if parts else "")

    def _check(self, total: int) -> None:
        if self.skipped > self.max_fraction * total:
            bound = f"{self.option} = {self.max_fraction:g} of {total} samples"
            raise ValueError(f"more than {bound} are unusable: {self.summary()}")
