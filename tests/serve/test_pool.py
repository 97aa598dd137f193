"""Requests are dealt to worker processes, which are started again when they die."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

pytest.importorskip("starlette")

from gp.serve import worker
from gp.serve.__main__ import devices_of_workers
from gp.serve.options import load_serve_config
from gp.serve.pool import Pool
from gp.serve.refusing import Refused
from gp.serve.request import ChatRequest, Message
from tests.support import told_worker


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setattr(worker, "work", told_worker.work)


def config_of(*more):
    return load_serve_config(None, ["model.base=tiny", "devices=cpu", "limits.batch=1", "limits.waiting=1", *more])


async def said(pool, what="who"):
    """Process, device, and number of workers on it, as the worker says."""
    async with aclosing(pool.ask(ChatRequest((Message("user", (what,)),), (), 1))) as events:
        _, ended = [event async for event in events]
    return ended.text.split()


def with_pool(work, *more):
    async def run():
        config = config_of(*more)
        pool = Pool(config, devices_of_workers(config))
        await pool.start()
        try:
            await work(pool)
        finally:
            await pool.close()

    asyncio.run(run())


def test_workers_of_one_device_take_requests_in_turn_and_know_of_each_other():
    async def work(pool):
        waiting = asyncio.create_task(said(pool, "wait"))  # the first one is busy from now on
        await asyncio.sleep(0)
        others = [await said(pool) for _ in range(3)]
        assert len({process for process, *_ in others}) == 1
        assert all(rest == ["cpu", "2"] for _, *rest in others)
        more = [asyncio.create_task(said(pool, "wait")) for _ in range(3)]
        await asyncio.sleep(0)
        assert [len(one.waiting) for one in pool.workers] == [2, 2]
        with pytest.raises(Refused, match="2 requests wait already"):  # a batch of one, and one behind, for each
            await said(pool)
        for task in (waiting, *more):
            task.cancel()
        await asyncio.gather(waiting, *more, return_exceptions=True)
        assert pool.num_open == 0

    with_pool(work, "workers=2")


def test_a_worker_that_died_comes_again_in_its_place():
    async def work(pool):
        (before, *_) = await said(pool)
        with pytest.raises(Refused, match="ended unexpectedly"):
            await said(pool, "die")
        while not pool.is_healthy:
            await asyncio.sleep(0.05)
        after, device, sharing = await said(pool)
        assert after != before and (device, sharing) == ("cpu", "1") and pool.restarts == 1

    with_pool(work)


def test_a_base_that_is_spread_has_one_worker(monkeypatch):
    assert devices_of_workers(config_of("devices=cuda:0,cuda:1", "workers=2")) == ["cuda:0"] * 2 + ["cuda:1"] * 2
    monkeypatch.setattr("gp.serve.__main__.find_devices", lambda given: ["cuda:0", "cuda:1"])
    spread = load_serve_config(None, ["model.base=tiny", "model.device_map=auto"])
    assert devices_of_workers(spread) == ["cuda:0"]


@pytest.mark.parametrize(("have", "sharing", "takes"), [(8, 1, 8), (8, 3, 2), (1, 2, 1)])
def test_workers_share_the_threads_of_a_cpu(monkeypatch, have, sharing, takes):
    import torch

    taken = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: have)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    worker.share_threads(sharing)
    assert taken == [takes]
