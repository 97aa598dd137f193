"""How many workers read the training data."""

from __future__ import annotations

import pytest

from gp.data.workers import fit_workers


def test_workers_are_fitted_to_the_shards(caplog):
    assert fit_workers(16, None, 2, 4) == 4
    assert not caplog.records
    assert fit_workers(5, None, 2, 4) == 2
    assert "data.num_workers reduced from 4 to 2: 5 training shards for 2 devices" in caplog.text
    assert fit_workers(1, None, 1, 0) == 0


def test_more_devices_than_shards():
    assert fit_workers(1, 100, 4, 4) == 4  # streams share shards where the counts are known
    with pytest.raises(ValueError, match="100 samples for 101 devices"):
        fit_workers(1000, 100, 101, 0)
    with pytest.raises(ValueError, match="3 shards for 4 devices"):
        fit_workers(3, None, 4, 0)
