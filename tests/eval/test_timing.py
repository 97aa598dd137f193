"""Times are ratios of neighbours."""

from __future__ import annotations

import pytest

from gp.eval import timing
from gp.eval.plan import OWN_GLIMPSE, UNPRUNED, Method
from tests.support.slowing import Batch, Model, SlowingClock


@pytest.fixture
def clock(monkeypatch) -> SlowingClock:
    clock = SlowingClock()
    monkeypatch.setattr(timing, "time_batch", clock)
    monkeypatch.setattr(timing, "ROUNDS", 5)
    return clock


BATCHES = [Batch([1, 2]), Batch([1])]
OTHER = Method("random", 0.5)


def test_rows_in_turn_behind_an_unpruned_run(clock, monkeypatch):
    monkeypatch.setattr(timing, "NARROW", 0)
    found = timing.time_rows(Model, BATCHES, [OWN_GLIMPSE, OTHER], 0, {})
    methods = [method for _, method in clock.calls]
    assert methods == [UNPRUNED] * 2 + [UNPRUNED, OWN_GLIMPSE, OTHER] * (timing.ROUNDS * 2)
    assert [size for size, _ in clock.calls[2:8]] == [2, 2, 2, 1, 1, 1]
    # behind the two that warm up, the un-pruned run of turn k is at clock 3 k + 3
    for method, place in ((OWN_GLIMPSE, 1), (OTHER, 2)):
        ratios = sorted((3 * k + 3 + place) / (3 * k + 3) for k in range(10))
        middle = sum(ratios[4:6]) / 2
        ratios = found[method].prefill_ratio, found[method].decode_ratio
        assert ratios == pytest.approx((0.5 * middle, 0.25 * middle), abs=1e-4)


def test_times_as_measured(clock, monkeypatch):
    """Medians over all runs; a batch of two has twice the questions a second of a batch of one."""
    monkeypatch.setattr(timing, "NARROW", 0)
    found = timing.time_rows(Model, BATCHES, [OTHER], 0, {})
    for method, place, shares in ((UNPRUNED, 0, (1, 1)), (OTHER, 1, (0.5, 0.25))):
        clocks = [2 * k + 3 + place for k in range(2 * timing.ROUNDS)]
        middle = sum(clocks[4:6]) / 2
        rates = sorted(size / (sum(shares) * clock) for clock, size in zip(clocks, [2, 1] * timing.ROUNDS))
        row = found[method]
        assert row.prefill_ms == pytest.approx(1000 * shares[0] * middle)
        assert row.decode_ms == pytest.approx(1000 * shares[1] * middle / timing.DECODED_TOKENS, rel=1e-4)
        assert row.questions_per_s == pytest.approx(sum(rates[4:6]) / 2, abs=5e-4)
    assert (found[UNPRUNED].prefill_ratio, found[UNPRUNED].decode_ratio) == (1, 1)


def test_unpruned_prompts_alone_are_timed(clock):
    assert list(timing.time_rows(Model, BATCHES, [], 0, {})) == [UNPRUNED]
    assert len(clock.calls) == 2 + 2 * timing.ENOUGH_ROUNDS


def test_rows_that_agree_are_done_early(clock, monkeypatch):
    """The first row's ratios are all the same, those of the second are not."""
    steady = {"none": 1.0, "glimpse": 0.5}
    count = iter(range(100))

    def seconds(model, batch, method, seed, num_keep):
        clock(model, batch, method, seed, num_keep)
        value = steady.get(method.pruner) or 1.0 + 0.2 * (next(count) % 2)
        return value, value

    monkeypatch.setattr(timing, "time_batch", seconds)
    found = timing.time_rows(Model, BATCHES, [OWN_GLIMPSE, OTHER], 0, {})
    methods = [method for _, method in clock.calls]
    assert (methods.count(OWN_GLIMPSE), methods.count(OTHER)) == (2 * timing.ENOUGH_ROUNDS, 2 * timing.ROUNDS)
    ratios = {method: (row.prefill_ratio, row.decode_ratio) for method, row in found.items()}
    assert ratios == {UNPRUNED: (1, 1), OWN_GLIMPSE: (0.5, 0.5), OTHER: (1.1, 1.1)}


@pytest.mark.parametrize(
    ("ratios", "narrow"), [([1.0], True), ([1.0, 1.01, 0.99, 1.02], True), ([1, 1.1, 0.9, 1.2], False)]
)
def test_what_agrees(ratios, narrow):
    assert timing.agree(ratios) == narrow
