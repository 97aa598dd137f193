"""Bill of a training step, through the command."""

from __future__ import annotations

from gp.bench.bill import Bill
from gp.bench.memory import fits
from tests.support.bench_commands import run_bench


def test_a_card_must_leave_room_for_what_is_not_counted():
    bill = Bill({"frozen weights": 22_000_000_000}, {"backward": {"VIP": 600_000_000}})
    assert not fits(bill, 24) and fits(bill, 40)
    assert fits(Bill({"frozen weights": 22_000_000_000}, {"backward": {"VIP": 400_000_000}}), 24)


def test_through_the_command(tmp_path):
    figures, markdown = run_bench(tmp_path, "memory", "--preset", "qwen3b")
    prefix, whole = (figures["bills"][way] for way in ("prefix", "whole"))
    assert prefix["standing_bytes"]["frozen weights"] == 2 * 3_754_622_976  # as the released checkpoint has
    assert prefix["total_bytes"] < whole["total_bytes"]
    assert "24 GB" in markdown
