"""What a record must be, and the one clear message when it is not."""

from __future__ import annotations

import json
import pickle

import pytest

from gp.data.sample import BadSample, parse_record
from gp.data.shards import Record
from tests.support.small_shards import HEIGHT, WIDTH, fields, image_bytes


def record(image: bytes | None = None, suffix: str = "jpg", **changes) -> Record:
    files = {suffix: image_bytes() if image is None else image, "json": json.dumps(fields(**changes)).encode()}
    return Record("s7/0003", "/data/s7.tar", "0003", files)


def reason_of(bad: Record) -> BadSample:
    with pytest.raises(BadSample) as caught:
        parse_record(bad)
    message = str(caught.value)
    assert "shard /data/s7.tar" in message and "key 0003" in message and "\n" not in message
    return caught.value


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
def test_good_record(suffix, kind):
    sample = parse_record(record(image_bytes(kind=kind), suffix))
    assert sample.image.mode == "RGB" and sample.image.size == (WIDTH, HEIGHT)
    assert (sample.id, sample.question, sample.answer) == ("s7/0003", "what is here ?", "red")
    assert (sample.width, sample.height, sample.dataset, sample.split) == (WIDTH, HEIGHT, "small", "train")
    assert sample.boxes_xyxy_px == ((0, 0, 27, 27),)
    assert sample.without_image().image is None and sample.without_image().id == sample.id


def test_grey_image_becomes_rgb():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (WIDTH, HEIGHT), 7).save(buffer, "PNG")
    assert parse_record(record(buffer.getvalue(), "png")).image.getpixel((0, 0)) == (7, 7, 7)


def test_boxes_are_clipped_and_useless_ones_dropped():
    boxes = [[-5, -5.5, 10, 10], [50, 20, 99, 99], [60, 0, 70, 10], [9, 9, 3, 12]]
    sample = parse_record(record(boxes_xyxy_px=boxes))
    assert sample.boxes_xyxy_px == ((0, 0, 10, 10), (50, 20, WIDTH, HEIGHT))


def test_smaller_copy_of_the_image_keeps_the_frame_of_the_boxes():
    sample = parse_record(record(image_bytes(56, 37), width=1000, height=667, boxes_xyxy_px=[[500, 10, 900, 600]]))
    assert (sample.width, sample.height) == (1000, 667)
    assert sample.boxes_xyxy_px == ((500, 10, 900, 600),)


@pytest.mark.parametrize("data", [b"", b"not an image", image_bytes()[:-200]], ids=["empty", "text", "truncated"])
def test_image_that_does_not_open(data):
    assert reason_of(record(data)).reason == "image does not open"


def test_decompression_bomb(monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    error = reason_of(record())
    assert error.reason == "image too large" and "decompression bomb" in error.detail


@pytest.mark.parametrize(
    "boxes",
    [[[60, 0, 70, 10]], [[-9, -9, 0, 0]], [[5, 5, 5, 9]], [[9, 9, 3, 12]]],
    ids=["right", "left", "flat", "reversed"],
)
def test_no_box_inside_the_image(boxes):
    error = reason_of(record(boxes_xyxy_px=boxes))
    assert error.reason == "box outside the image" and f"{WIDTH} x {HEIGHT} px" in error.detail


def test_no_boxes():
    assert reason_of(record(boxes_xyxy_px=[])).reason == "no boxes"


@pytest.mark.parametrize(
    "name", ["question", "answer", "boxes_xyxy_px", "width", "height", "dataset", "split", "source_id"]
)
def test_missing_field(name):
    error = reason_of(record(**{name: None}))
    assert error.reason == "missing field" and name in error.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("answer", 7),
        ("boxes_xyxy_px", [1, 2, 3, 4]),
        ("boxes_xyxy_px", [[1, 2, 3]]),
        ("boxes_xyxy_px", [[1, 2, 3, float("nan")]]),
        ("boxes_xyxy_px", [[1, 2, 3, 10**400]]),
        ("boxes_xyxy_px", "1,2,3,4"),
        ("width", 0),
        ("height", "28"),
        ("width", 3.5),
    ],
)
def test_wrong_field(name, value):
    error = reason_of(record(**{name: value}))
    assert error.reason == "wrong field" and name in error.detail


def test_empty_answer():
    assert reason_of(record(answer=" ")).reason == "missing field"


def test_wrong_json():
    for data in (b"{", b"\xff\xfe", b"[1]"):
        bad = Record("s7/0003", "/data/s7.tar", "0003", {"jpg": image_bytes(), "json": data})
        assert reason_of(bad).reason == "wrong json"


def test_half_a_record():
    whole = record().files
    for left_out, reason in (("json", "no json"), ("jpg", "no image")):
        files = {suffix: data for suffix, data in whole.items() if suffix != left_out}
        assert reason_of(Record("s7/0003", "/data/s7.tar", "0003", files)).reason == reason


def test_turned_image():
    """An image whose sides are swapped (EXIF) would put the boxes in the wrong place."""
    assert reason_of(record(image_bytes(HEIGHT, WIDTH))).reason == "size mismatch"


def test_extreme_aspect_ratio():
    bad = record(image_bytes(600, 2), width=600, height=2, boxes_xyxy_px=[[0, 0, 9, 2]])
    assert reason_of(bad).reason == "extreme aspect ratio"


def test_bad_sample_travels_between_processes():
    error = pickle.loads(pickle.dumps(BadSample("no boxes", "shard a, key b", "detail")))
    assert (error.reason, error.where) == ("no boxes", "shard a, key b")
    assert str(error) == "shard a, key b: no boxes (detail)"
