"""Addresses of pictures: downloaded within the limits of pictures in a request, each failure a clean 400."""

from __future__ import annotations

import asyncio
import io
import time

import pytest

pytest.importorskip("httpx2")

import httpx2
from PIL import Image

from gp.serve import fetching
from gp.serve.fetching import fetch
from gp.serve.options import Limits, ServeConfig, ServedModel
from gp.serve.refusing import Refused
from gp.serve.request import ChatRequest, Message


def file_of(kind="PNG", size=(30, 20)):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind)
    return file.getvalue()


async def dripping():
    while True:
        yield b"0"
        await asyncio.sleep(0.05)


async def answer(request):
    """What is at the addresses: the path says it."""
    found = {
        "/a.png": file_of(),
        "/b.gif": file_of("GIF"),
        "/wide.png": file_of(size=(3000, 500)),
        "/long": bytes(2**21),
    }
    path = request.url.path
    if path == "/moved":
        return httpx2.Response(302, headers={"location": "/a.png"})
    if path == "/refused":
        raise httpx2.ConnectError("no route")
    if path == "/drip":
        return httpx2.Response(200, content=dripping())
    return httpx2.Response(200, content=found[path]) if path in found else httpx2.Response(404)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    transport = httpx2.MockTransport(answer)
    monkeypatch.setattr(fetching, "reaching", lambda: httpx2.AsyncClient(transport=transport, follow_redirects=True))


def fetched(*pictures):
    config = ServeConfig(ServedModel("tiny"), Limits(body_mib=1, image_megapixels=1, read_s=0.3))
    return asyncio.run(fetch(ChatRequest((Message("user", (0, "?")),), pictures, 1), config))


def test_files_take_the_place_of_addresses():
    assert fetched("http://here/a.png", b"sent", "http://here/moved").pictures == (file_of(), b"sent", file_of())
    assert fetched(b"sent").pictures == (b"sent",)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.png", "status 404"),
        ("b.gif", "expected JPEG, PNG or WebP"),
        ("wide.png", "at most 1 megapixels, got 3000 x 500 px"),
        ("long", "more than 1 MiB"),
        ("refused", "no route"),
    ],
)
def test_what_is_no_picture_in_time_is_the_clients_mistake(path, message):
    with pytest.raises(Refused, match=f"image 1, http://here/{path}: .*{message}") as refused:
        fetched(b"sent", f"http://here/{path}")
    assert refused.value.status == 400


def test_a_server_that_takes_its_time_is_not_waited_for():
    start = time.monotonic()
    with pytest.raises(Refused, match=r"did not give them within 0\.3 s"):
        fetched("http://here/drip")
    assert time.monotonic() - start < 5


def test_an_address_that_is_none():
    with pytest.raises(Refused, match="image 0, http://:"):
        fetched("http://")
