"""Waiting for a loader."""

from __future__ import annotations

import time

import pytest

from gp.data.timed import TimedLoader

pytestmark = pytest.mark.core


def test_only_the_time_until_a_batch_comes_counts():
    def loader():
        for number in range(3):
            time.sleep(0.02)
            yield number

    timed, seen = TimedLoader(loader()), []
    for number in timed:
        seen.append(number)
        time.sleep(0.2)
    assert seen == [0, 1, 2] and 0.06 <= timed.waited_s < 0.4
