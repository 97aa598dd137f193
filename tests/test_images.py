"""Pictures from paths, arrays and addresses."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from gp import images
from gp.images import read_image, read_images

ARRAY = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)


def png(picture: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.fixture
def address() -> Iterator[str]:
    """A picture on this machine's own loopback address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = png(Image.fromarray(ARRAY)) if self.path.endswith(".png") else b"text"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/scene.png"
    server.shutdown()
    server.server_close()


def test_every_form_gives_the_same_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(ARRAY)))
    shown = [ARRAY, torch.from_numpy(ARRAY), tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(ARRAY)]
    assert all(np.array_equal(np.asarray(picture), ARRAY) for picture in read_images(shown))
    assert len(read_images(ARRAY)) == 1 and read_images([]) == []


def test_files_are_read_upright_and_as_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(ARRAY), exif=exif))
    assert read_image(tmp_path / "a.png").size == (4, 6)
    (tmp_path / "b.png").write_bytes(png(Image.new("L", (3, 2), 7)))
    assert read_image(tmp_path / "b.png").mode == read_image(Image.new("RGBA", (3, 2))).mode == "RGB"


@pytest.mark.parametrize(
    "array",
    [ARRAY.astype(np.float32), ARRAY[:, :, 0], ARRAY.transpose(2, 0, 1), ARRAY[None], ARRAY[:0], torch.rand(4, 6, 3)],
    ids=lambda array: f"{array.dtype} {list(array.shape)}",
)
def test_arrays_of_another_form(array):
    with pytest.raises(ValueError, match=r"expected a uint8 array \[height, width, 3\], got \w+ \["):
        read_image(array)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        read_image(tmp_path / "nowhere.png")
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"a\.txt: image does not open .*JPEG, PNG or WebP"):
        read_image(tmp_path / "a.txt")


def test_addresses_are_opened_only_where_that_is_allowed(address, monkeypatch):
    with pytest.raises(ValueError, match=r"scene\.png: addresses are not opened.*allow_urls=True"):
        read_image(address)
    assert np.array_equal(np.asarray(read_image(address, allow_urls=True)), ARRAY)
    with pytest.raises(ValueError, match=r"\.txt: image does not open"):
        read_image(address.replace(".png", ".txt"), allow_urls=True)
    with pytest.raises(FileNotFoundError):  # no other kinds of address: a path of this name
        read_image("file:///etc/hostname", allow_urls=True)
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="more than 0 MiB"):
        read_image(address, allow_urls=True)
