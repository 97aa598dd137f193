"""The least config that loads, as a file."""

from __future__ import annotations

import pytest

from tests.support.config_files import MINIMAL


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Whatever reaches the training was not refused."""

    def reached(config):
        raise AssertionError("the training was reached")

    monkeypatch.setattr("gp.training.train.train", reached)
