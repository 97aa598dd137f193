"""A micro-batch of grpo, timed through the command."""

from __future__ import annotations

import pytest

from gp.bench.plus_bill import WAYS
from gp.bench.plus_step import STAGES
from tests.support.bench_commands import assert_spread, run_bench

pytest.importorskip("peft")


def test_stages_of_both_ways(tmp_path):
    small = ("--preset", "tiny", "--answer", "3", "--group", "2", "--rank", "2", "--repeats", "2")
    figures, markdown = run_bench(tmp_path, "grpo", *small, "--keep-ratio", "0.5")
    assert list(figures["ways"]) == list(WAYS)
    for one in figures["ways"].values():
        assert list(one["stages_s"]) == list(STAGES)
        for spread in (*one["stages_s"].values(), one["step_s"], figures["last_token_against_whole"]):
            assert_spread(spread)
        assert sum(spread["low"] for spread in one["stages_s"].values()) <= one["step_s"]["high"]
    assert "| backward |" in markdown and "2 x 3 answer tokens" in markdown
