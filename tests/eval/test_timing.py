"""Times are ratios of neighbours."""

from __future__ import annotations

import pytest

from gp.eval import timing
from gp.eval.plan import OWN_GLIMPSE, UNPRUNED
from tests.support.slowing import Batch, Model, SlowingClock


def test_pairs_in_turn_after_a_warm_up(monkeypatch):
    clock = SlowingClock()
    monkeypatch.setattr(timing, "time_batch", clock)
    monkeypatch.setattr(timing, "REPEATS", 5)
    prefill_ratio, decode_ratio = timing.time_ratios(Model, [Batch([1, 2]), Batch([1])], OWN_GLIMPSE, 0, {})
    calls = clock.calls
    assert len(calls) == (timing.REPEATS + 1) * 2 * 2
    assert [method for _, method in calls] == [UNPRUNED, OWN_GLIMPSE] * (len(calls) // 2)
    # in pair k the pruned run comes second, at clock 2 k instead of 2 k - 1; the first two pairs warm up
    ratios = [2 * k / (2 * k - 1) for k in range(3, 13)]
    middle = sum(sorted(ratios)[4:6]) / 2
    assert (prefill_ratio, decode_ratio) == pytest.approx((0.5 * middle, 0.25 * middle), abs=1e-4)
