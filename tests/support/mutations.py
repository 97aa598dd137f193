"""Seeded damage to bytes and to JSON, and the count of what came of it."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

ROUNDS = 300
NASTY = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -0.5, 0.5, 1e308, float("nan"), float("inf"),
    "", " ", "x", "nan", "<image>", "<|image_pad|>", "\u0000", "\ud83d\ude00", "../../etc/passwd", "/etc/passwd",
    "e\u0301" * 50, "a" * 5000, "${oc.env:HOME}", "???",
    [], {}, [[]], [None], [1, 2, 3], [[1, 2]], {"a": 1}, [[0, 0, 1e9, 1e9]], [[5, 5, 1, 1]],
)  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to three changes: flipped bits, cuts, zeros, noise, bytes that move, repeat or are lost."""
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(data) + 1), rng.choice((1, 7, 512, 4096))
        kind = rng.randrange(7)
        if kind == 0 and data:
            place = min(place, len(data) - 1)
            data = data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place]
        elif kind == 2:
            data = data[:place] + bytes(len(data[place : place + length])) + data[place + length :]
        elif kind == 3:
            data = data[:place] + rng.randbytes(length) + data[place:]
        elif kind == 4:
            data = data[:place] + data[place : place + length] + data[place:]
        elif kind == 5:
            data = data[:place] + data[place + length :]
        else:
            data = data[length:] + data[:length]
    return data


def changed(value: Any, rng: random.Random) -> Any:
    """A copy of plain JSON values with one to three of them replaced, removed, renamed or wrapped."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return rng.choice(NASTY)
        parent, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[str(key) + "x"] = parent.pop(key)
        elif kind == 2:
            parent[key] = [parent[key]]
        else:
            parent[key] = copy.deepcopy(rng.choice(NASTY))
    return value


def as_text(value: Any, rng: random.Random) -> bytes:
    """JSON, now and then with damage to its text."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return damaged(text, rng) if rng.random() < 0.2 else text


def outcomes(name: str, attempt: Callable[[random.Random], str], rounds: int = ROUNDS) -> Counter[str]:
    """Runs an attempt once for each seed, and prints how often each outcome came.

    Args:
        name: of the test, part of the seed.
        attempt: given a generator, says what came of it; a ValueError or OSError is the outcome "refused", any other
            error is a failure that names the seed.
        rounds: number of seeds.
    """
    counts: Counter[str] = Counter()
    for seed in range(rounds):
        try:
            counts[attempt(random.Random(f"{name} {seed}"))] += 1
        except (ValueError, OSError) as error:
            assert str(error).strip(), f"{name}, seed {seed}: an error without words: {error!r}"
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}: {type(error).__name__}: {error}") from error
    print(f"{name}: {rounds} mutated inputs, {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
    return counts


def _places(value: Any):
    """Every (container, key or index) in it."""
    if isinstance(value, dict | list):
        items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        for key, inner in items:
            yield value, key
            yield from _places(inner)
