"""Decoding and throughput, through the command."""

from __future__ import annotations

import pytest

from gp.bench import decode
from gp.bench.__main__ import main
from gp.bench.presets import spread_counts
from tests.support.bench_commands import assert_spread, run_bench


def test_decode(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "in_own_process", lambda *_: {"prefill": 3.0, "held": 1.0, "decode": 2.0})
    arguments = ("--preset", "tiny", "--repeats", "2", "--new-tokens", "3", "--keep-ratio", "0.25")
    figures, markdown = run_bench(tmp_path, "decode", *arguments)
    assert list(figures["ways"]) == list(decode.WAYS)
    for entry in figures["ways"].values():
        assert_spread(entry["step_s"])
    caches = {way: entry["cache_mib"] * 2**20 for way, entry in figures["ways"].items()}
    token = 3 * 2 * 32 * 4  # layers, keys and values, width, bytes
    assert caches == {"un-pruned": 22 * token, "pruned": 10 * token, "short from the start": 10 * token}
    assert figures["against_unpruned"]["pruned"]["bound"] > 1
    assert "4 kept" in markdown


def test_memory_of_one_way(capsys):
    assert main(["decode", "--preset", "tiny", "--new-tokens", "2", "--memory-of", "pruned"]) == 0
    assert '"held"' in capsys.readouterr().out


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


def test_uneven_rows_keep_the_mean():
    assert spread_counts(10, 100, 1) == (10,)
    assert sum(spread_counts(102, 1024, 8)) == pytest.approx(8 * 102, abs=8)
    assert min(spread_counts(1, 16, 8)) == 1 and max(spread_counts(15, 16, 8)) == 16
