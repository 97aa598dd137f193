"""Throughput of batches, through the command."""

from __future__ import annotations

import pytest

from tests.support.bench_commands import run_bench


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
