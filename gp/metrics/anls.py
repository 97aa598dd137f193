"""ANLS: how near an answer's letters are to the right one's, for documents that are read."""

from __future__ import annotations

from torchmetrics.functional.text import edit_distance

LEAST = 0.5


def anls(prediction: str, answer: str) -> float:
    """Average normalised Levenshtein similarity of one answer, in 0..1.

    1 - edits / letters of the longer text, and 0 where that is less than 0.5: more than half is then misread. Case and
    the number of spaces do not count.

    Source: Biten et al., "Scene Text Visual Question Answering", 2019, section 4.2.

    >>> anls("STOP  sign", "stop sign"), anls("stop", "shop"), anls("red", "blue")
    (1.0, 0.75, 0.0)
    """
    said, right = (" ".join(text.lower().split()) for text in (prediction, answer))
    longer = max(len(said), len(right))
    if longer == 0:
        return 1.0
    similarity = 1 - int(edit_distance([said], [right], reduction="sum")) / longer
    return similarity if similarity >= LEAST else 0.0
