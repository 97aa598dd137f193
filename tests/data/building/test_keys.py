"""Keys of images."""

from __future__ import annotations

from gp.data.building.keys import image_key


def test_keys():
    assert image_key("./cot/gqa/1.jpg") == image_key("datas/cot/gqa/1.jpg") == "gqa/1.jpg"
    assert image_key("shots/1.png") == "shots/1.png" and image_key("a/cot") == "a/cot"
    assert [image_key(path) for path in ("/etc/x", "cot/../x", "..", "", "a\\b", "cot/gqa/../../x")] == [None] * 6
