"""Images of a folder and of a tar in pieces; everything that can be wrong with an archive."""

from __future__ import annotations

import io
import tarfile
import unicodedata

import pytest

from gp.data.building.keys import image_key, wanted_key
from gp.data.building.pieces import Pieces
from gp.data.building.sources import ImageFolder, TarStream, open_source
from tests.support.viscot_files import IMAGES, drawn, got, tar_bytes, write_folder, write_pieces


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("prefix", ["cot/", "./cot/", "datas/cot/", ""])
def test_pieces_hold_the_same_as_the_folder(tmp_path, count, prefix):
    pieces = write_pieces(tmp_path / "p", tar_bytes(IMAGES, prefix), count)
    source = open_source([str(tmp_path / "p")])
    assert got(source) == IMAGES
    assert len(source.describe()["pieces"]) == len(pieces) == count
    assert got(open_source([str(write_folder(tmp_path / "f", IMAGES))])) == IMAGES


def test_walking_from_any_position_goes_on_there(tmp_path):
    source = TarStream(write_pieces(tmp_path / "p", tar_bytes(IMAGES), 3))
    founds = list(source.walk(IMAGES))
    assert [found.key for found in founds] == list(IMAGES)
    for number, found in enumerate(founds):
        assert list(source.walk(IMAGES, found.position)) == founds[number:]
    folder = ImageFolder(write_folder(tmp_path / "f", IMAGES))
    assert [found.key for found in folder.walk(IMAGES, 5)] == sorted(IMAGES)[5:]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_other_kinds_of_members(tmp_path, form):
    """Long names, prefixes, links, folders and a name that is not ASCII, as tar writes them in every format."""
    long = "gqa/" + "/".join(["folder" * 5] * 5) + "/x.jpg"
    images = {"gqa/a.jpg": b"1" * 700, long: b"2" * 1500, "gqa/\u00e9.jpg": b"3"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for key, data in images.items():
            info = tarfile.TarInfo(f"cot/{key}")
            info.size, info.mtime = len(data), 1.5
            tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo(f"cot/link-{len(key)}.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "cot/gqa/a.jpg"
            tar.addfile(link)
    source = TarStream(write_pieces(tmp_path / "p", buffer.getvalue(), 2))
    assert got(source, {*images, "link-9.jpg"}) == images


def test_truncated_anywhere_is_an_error_that_names_the_last_piece(tmp_path):
    whole = tar_bytes({key: IMAGES[key] for key in list(IMAGES)[:3]})
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 1024
    for size in [*range(1024, end, 512), 512 * 3 + 1]:
        pieces = write_pieces(tmp_path / "p", whole[:size], 2)
        with pytest.raises(ValueError, match=rf"{pieces[-1]}: .* ends .*truncated"):
            got(TarStream(pieces))


def test_a_short_piece_in_the_middle_is_suspected(tmp_path):
    pieces = write_pieces(tmp_path / "p", tar_bytes(IMAGES), 4)
    pieces[1].write_bytes(pieces[1].read_bytes()[:-700])
    with pytest.raises(ValueError, match=rf"damaged.*incomplete: {pieces[1]}"):
        got(TarStream(pieces))


def test_a_damaged_header_is_an_error_that_names_its_piece(tmp_path):
    whole = bytearray(tar_bytes(IMAGES))
    at = whole.index(b"cot/gqa/3.jpg")
    whole[at] ^= 1
    pieces = write_pieces(tmp_path / "p", bytes(whole), 4)
    number, place = divmod(at, -(-len(whole) // 4))
    with pytest.raises(ValueError, match=rf"{pieces[number]}, byte {place}: .*checksum"):
        got(TarStream(pieces))


def test_a_zero_block_in_the_middle_is_no_end(tmp_path):
    whole = tar_bytes(IMAGES)
    at = whole.index(b"cot/gqa/3.jpg")
    pieces = write_pieces(tmp_path / "p", whole[:at] + bytes(512) + whole[at:], 1)
    with pytest.raises(ValueError, match=r"damaged: .*zero block"):
        got(TarStream(pieces))


def test_a_piece_that_shrinks_while_it_is_read(tmp_path):
    pieces = Pieces(write_pieces(tmp_path / "p", tar_bytes(IMAGES), 2))
    pieces.paths[0].write_bytes(b"")
    with pytest.raises(ValueError, match="became shorter"):
        pieces.read(0, 512)


def test_names_that_climb_out_answer_nobody(tmp_path):
    images = {"../gqa/1.jpg": b"evil", "gqa/../gqa/1.jpg": b"evil", "gqa/1.jpg": b"good"}
    source = TarStream(write_pieces(tmp_path / "p", tar_bytes(images), 1))
    assert got(source, {"gqa/1.jpg"}) == {"gqa/1.jpg": b"good"}


def test_the_copy_in_val_answers_for_a_missing_image(tmp_path):
    """As the official loader does: it tries the path with `val` behind the set's folder."""
    assert wanted_key("openimages/val/1.jpg", {"openimages/1.jpg"}) == "openimages/1.jpg"
    assert wanted_key("openimages/val/1.jpg", {"openimages/1.jpg", "openimages/val/1.jpg"}) == "openimages/val/1.jpg"
    assert wanted_key("a/b/val/1.jpg", {"a/b/1.jpg"}) is None and wanted_key("a/2.jpg", {"a/1.jpg"}) is None
    images = {"openimages/val/1.jpg": b"one", "gqa/2.jpg": b"two"}
    wanted = {"openimages/1.jpg", "gqa/2.jpg"}
    expected = {"openimages/1.jpg": b"one", "gqa/2.jpg": b"two"}
    assert got(TarStream(write_pieces(tmp_path / "p", tar_bytes(images), 1)), wanted) == expected
    assert got(ImageFolder(write_folder(tmp_path / "f", images)), wanted) == expected


@pytest.mark.parametrize("name", ["a.jfif", "a.JPG", "a", "a.jpeg", "a.webp"])
def test_a_folder_of_images_is_one_whatever_they_are_called(tmp_path, name):
    kind = "WEBP" if name.endswith("webp") else "JPEG"
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / name).write_bytes(drawn(8, 8, "x", kind))
    source = open_source([str(tmp_path / "f")])
    assert isinstance(source, ImageFolder) and list(got(source, {name})) == [name]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_composed_or_apart_are_one_name(tmp_path, form):
    wanted = image_key("caf\u00e9/\u00fc.jpg")
    assert wanted == image_key(unicodedata.normalize("NFD", "caf\u00e9/\u00fc.jpg"))
    written = unicodedata.normalize(form, wanted)
    assert got(open_source([str(write_folder(tmp_path / "f", {written: b"1"}))]), {wanted}) == {wanted: b"1"}
    assert got(TarStream(write_pieces(tmp_path / "p", tar_bytes({written: b"2"}), 1)), {wanted}) == {wanted: b"2"}
