"""Pieces of an archive: named, ordered, complete."""

from __future__ import annotations

import pytest

from gp.data.building.pieces import expand_paths, order_pieces
from gp.data.building.sources import TarStream, open_source
from tests.support.viscot_files import IMAGES, got, tar_bytes, write_pieces


def test_every_way_to_name_pieces(tmp_path):
    pieces = write_pieces(tmp_path / "cot_images_tar_split", tar_bytes(IMAGES), 12)
    (tmp_path / "cot_images_tar_split" / "README.md").write_text("notes")
    inside = tmp_path / "cot_images_tar_split"
    for entries in (
        [str(tmp_path)],
        [str(inside)],
        [f"{inside}/cot_images_*"],
        [f"{inside}/cot_images_{{00..11}}"],
        [str(piece) for piece in reversed(pieces)],
    ):
        assert open_source(entries).pieces.paths == pieces


@pytest.mark.parametrize("names", ["part-{:02d}", "part{}", "x{:03d}.tar", "cot.tar.{}"])
def test_a_gap_in_the_numbers_is_an_error_before_anything_is_read(tmp_path, names):
    pieces = write_pieces(tmp_path / "p", tar_bytes(IMAGES), 12, names)
    assert order_pieces(sorted(pieces)) == pieces
    pieces[5].unlink()
    with pytest.raises(ValueError, match=rf"12 .*11.*missing after {pieces[4].name}"):
        open_source([str(tmp_path / "p")])


def test_letters_that_split_appends(tmp_path):
    whole = tar_bytes(IMAGES)
    pieces = []
    for number, letters in enumerate(("xay", "xaz", "xba")):
        pieces.append(tmp_path / letters)
        pieces[-1].write_bytes(whole[number * 4000 : (number + 1) * 4000 if number < 2 else None])
    assert order_pieces(pieces[::-1]) == pieces and got(TarStream(pieces)) == IMAGES
    with pytest.raises(ValueError, match=r"3 .*2.*missing after xay"):
        order_pieces([pieces[0], pieces[2]])


def test_pieces_that_cannot_be(tmp_path):
    pieces = write_pieces(tmp_path / "p", tar_bytes(IMAGES), 3)
    with pytest.raises(ValueError, match="given twice"):
        order_pieces([pieces[0], pieces[0]])
    with pytest.raises(ValueError, match="number in their names"):
        order_pieces([pieces[0].rename(tmp_path / "first"), pieces[1].rename(tmp_path / "second")])
    with pytest.raises(FileNotFoundError, match=r"cot_images_07: no such file"):
        order_pieces([tmp_path / "cot_images_07"])
    with pytest.raises(ValueError, match="plain tar"):
        open_source([str(pieces[2])])
    with pytest.raises(FileNotFoundError, match="no such files"):
        expand_paths([f"{tmp_path}/nothing-*"])
    with pytest.raises(ValueError, match="braces"):
        expand_paths(["a{0..1"])


def test_first_piece_missing(tmp_path):
    pieces = write_pieces(tmp_path / "p", tar_bytes(IMAGES), 3)
    pieces[0].unlink()
    with pytest.raises(ValueError, match=r"cot_images_01: .*plain tar"):
        open_source([str(tmp_path / "p")])
