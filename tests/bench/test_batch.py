"""Throughput of batches, through the command."""

from __future__ import annotations

import pytest

from gp.bench import batch
from tests.support.bench_commands import run_bench


def test_compiled_generations_are_rows_of_their_own(tmp_path, monkeypatch):
    """What is compiled is shown in `tests/bench/test_decode.py`."""
    seen, plain = [], batch.generate
    counted = lambda *a, compiled=False: seen.append(compiled) or plain(*a)  # noqa: E731
    monkeypatch.setattr(batch, "generate", counted)
    arguments = ("--preset", "tiny", "--repeats", "1", "--new-tokens", "2", "--batch-sizes", "3", "--compile")
    figures, _ = run_bench(tmp_path, "batch", *arguments, "--keep-ratio", "0.3")
    ratios = figures["batches"]["3"]["ratios"]
    assert {f"decode, {way}: plain / compiled" for way in batch.WAYS} <= set(ratios)
    assert ratios["compiled decode: un-pruned / uneven"]["bound"] == ratios["decode: un-pruned / uneven"]["bound"]
    assert seen == [*[False] * 3, *[True] * 3] * 2


def test_batch(tmp_path):
    arguments = ("--preset", "tiny", "--repeats", "1", "--new-tokens", "2", "--batch-sizes", "3")
    figures, _ = run_bench(tmp_path, "batch", *arguments, "--keep-ratio", "0.3")
    rows = figures["batches"]["3"]["rows"]
    assert {way: row["kept"] for way, row in rows.items()} == {
        "un-pruned": None,
        "equal": [4, 4, 4],
        "uneven": [1, 4, 7],
    }
    assert rows["uneven"]["padding"] == pytest.approx(1 - (7 + 10 + 13) / (3 * 13))
    assert all(row["prompts_per_s"] > 0 and row["tokens_per_s"] > 0 for row in rows.values())
    ratios = figures["batches"]["3"]["ratios"]
    assert ratios["decode: un-pruned / uneven"]["bound"] > 1 and ratios["prefill: uneven / equal"]["bound"] > 1
