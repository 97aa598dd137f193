"""Bill of a training step, through the command."""

from __future__ import annotations

from gp.bench.bill import Bill
from gp.bench.large_bill import LARGE_WAYS, Parts, card_bytes
from gp.bench.memory import fits
from tests.support.bench_commands import run_bench


def test_a_card_must_leave_room_for_what_is_not_counted():
    bill = Bill({"frozen weights": 22_000_000_000}, {"backward": {"VIP": 600_000_000}})
    assert not fits(bill, 24) and fits(bill, 40)
    assert fits(Bill({"frozen weights": 22_000_000_000}, {"backward": {"VIP": 400_000_000}}), 24)


def test_cards_that_a_large_base_needs():
    """By hand: 100 quantized weights of 200, a part of 20 that are all quantized, and 50 bytes beside the weights."""
    parts = Parts(linear=100, other=100, largest=20, largest_linear=20)
    bill = Bill({"frozen weights": 400, "trained parts": 20}, {"backward": {"VIP": 30}})
    ways = {way.name: way for way in LARGE_WAYS}
    sizes = {name: card_bytes(ways[name], parts, bill, 2, 4) for name in ("one card", "device_map", "fsdp2")}
    assert sizes == {"one card": 450, "device_map": 400 / 4 + 40 + 50, "fsdp2": 400 / 4 + 80 + 50}
    assert card_bytes(ways["one card, int8"], parts, bill, 2, 1) == 100 + 200 + 50
    assert card_bytes(ways["device_map, int8"], parts, bill, 2, 2) == 300 / 2 + 20 + 50


def test_through_the_command(tmp_path):
    figures, markdown = run_bench(tmp_path, "memory", "--preset", "qwen3b")
    prefix, whole = (figures["bills"][way] for way in ("prefix", "whole"))
    assert prefix["standing_bytes"]["frozen weights"] == 2 * 3_754_622_976  # as the released checkpoint has
    assert prefix["total_bytes"] < whole["total_bytes"]
    assert "24 GB" in markdown and "| fsdp2 | 1 | 1 | 1 | 1 |" in markdown
