"""A thousand clients, good and bad: every good one gets what `ask` answers, every bad one a status that says so."""

from __future__ import annotations

import pytest

pytest.importorskip("openai")
pytest.importorskip("uvicorn")

from gp.serve.worker import KEPT_BYTES
from tests.support.serve_load import run


@pytest.mark.slow
def test_every_client_gets_what_it_should(tmp_path):
    found = run(1000, tmp_path / "log")
    print(found)
    assert not found["wrong"]
    assert sum(n for kind, n in found["requests"].items() if kind != "stream asked again") == 1000
    assert "gp_worker_restarts 1.0" in found["metrics"] and "gp_requests_open 0.0" in found["metrics"]
    (server, worker), (server_later, worker_later) = found["mib"]["4/8"], found["mib"]["8/8"]
    assert server_later < 1.1 * server + 20
    assert worker_later < worker + KEPT_BYTES / 2**20 + 20
