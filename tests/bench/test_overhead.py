"""Stock against wrapped, through the command."""

from __future__ import annotations

import pytest

from gp.bench import overhead
from gp.bench.__main__ import main
from gp.measure.spread import Spread
from gp.model import GlimpseModel
from tests.support.bench_commands import assert_spread, run_bench

ARGUMENTS = ("overhead", "--preset", "tiny", "--repeats", "2", "--new-tokens", "3")


def test_overhead(tmp_path):
    figures, markdown = run_bench(tmp_path, *ARGUMENTS)
    assert list(figures["ways"]) == [overhead.STOCK, overhead.WRAPPED]
    for entry in figures["ways"].values():
        assert_spread(entry["generate_s"])
    assert_spread(figures["against_stock"])
    assert f"| {overhead.WRAPPED} |" in markdown


def test_a_ratio_is_of_the_same_round(monkeypatch, tmp_path):
    """A machine that slows down between rounds changes both ways alike."""
    seconds = {overhead.STOCK: [1.0, 10.0, 100.0], overhead.WRAPPED: [1.02, 10.2, 102.0]}
    monkeypatch.setattr(overhead, "measure_s", lambda *_: seconds)
    figures, _ = run_bench(tmp_path, *ARGUMENTS)
    assert Spread(**figures["against_stock"]).median == pytest.approx(1.02)


def test_other_ids_are_no_comparison(monkeypatch):
    generate = GlimpseModel.generate
    monkeypatch.setattr(GlimpseModel, "generate", lambda self, **how: generate(self, **how) + 1)
    with pytest.raises(RuntimeError, match="other ids"):
        main([*ARGUMENTS])
