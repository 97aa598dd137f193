"""Samples that only the processor finds out to be bad: they are skipped by name, as those that do not parse are."""

from __future__ import annotations

from collections.abc import Sequence

from gp.data.batch import Batch, Collator
from gp.data.sample import BadSample, Sample


def usable_batch(collator: Collator, samples: Sequence[Sample]) -> tuple[Batch | None, list[BadSample]]:
    """The batch of those samples that the processor can read, and what is wrong with the others.

    Args:
        collator: of the base.
        samples: decoded and checked, any number.

    Returns:
        Batch, in the order of the samples; None if none is usable. One error for each of the others.

    Raises:
        Exception: the processor reads each sample alone, but not all together: that is an error of the program.
    """
    found = [marked(collator, sample) for sample in samples]
    refused = [error for error in found if error is not None]
    good = [sample for sample, error in zip(samples, found, strict=True) if error is None]
    try:
        return (collator(good) if good else None), refused
    except Exception:
        found = [refusal(collator, sample) for sample in good]
        more = [error for error in found if error is not None]
        if not more:
            raise
    good = [sample for sample, error in zip(good, found, strict=True) if error is None]
    return (collator(good) if good else None), refused + more


def marked(collator: Collator, sample: Sample) -> BadSample | None:
    """The error of a question or answer that holds what the family puts in the place of an image."""
    for name in ("question", "answer"):
        text = getattr(sample, name)
        if marker := next((marker for marker in collator.markers if marker in text), None):
            return BadSample("image marker in a text", sample.id, f"{name}: {text!r:.200} holds {marker!r}")
    return None


def refusal(collator: Collator, sample: Sample) -> BadSample | None:
    """What the processor says to a sample alone; None: it reads it."""
    try:
        collator([sample])
    except MemoryError:
        raise
    except Exception as error:
        return BadSample("refused by the processor", sample.id, f"{type(error).__name__}: {error}"[:300])
    return None
