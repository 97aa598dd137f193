"""A build that is killed anywhere and run again leaves the same shards as one that was not."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from gp.data.building import BuildConfig
from gp.data.building.build import build
from gp.data.building.journal import STATE
from gp.data.building.packer import Packer
from gp.data.manifest import read_manifest
from tests.support.viscot_files import annotation, config, tar_bytes, training_images, write_folder, write_pieces

GIVEN = {"annotations": annotation("vsr", "cub", "sroie"), "shard_samples": 25, "splits": {"train": 0.8, "val": 0.2}}


def slow_build(given: BuildConfig) -> None:
    """Slowed down, so that there is something to kill; the journal is written all the time."""
    pack = Packer.pack

    def slow(self, task, report):
        time.sleep(0.005)
        pack(self, task, report)

    Packer.pack = slow
    build(given, checkpoint_every_s=0.0)


def kill_and_finish(tmp_path: Path, images: Path, workers: int, kills: list[float]) -> list[int]:
    """Runs the build in a process of its own, kills it once the journal says that so much of the archive is done, each
    time, and runs it to its end; the journal's positions after the kills."""
    given = config(tmp_path, images, **GIVEN, workers=workers, out=str(tmp_path / "killed"))
    total = sum(piece.stat().st_size for piece in images.iterdir())
    positions = []
    for share in kills:
        process = multiprocessing.get_context("fork").Process(target=slow_build, args=(given,))
        process.start()
        while process.is_alive() and position(tmp_path) < share * total:
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        positions.append(position(tmp_path))
    build(given)
    return positions


def position(tmp_path: Path) -> int:
    state = tmp_path / "killed" / ".v.unfinished" / STATE
    return json.loads(state.read_text())["position"] if state.exists() else -1


def same(tmp_path: Path) -> None:
    first, again = ({p.name: p.read_bytes() for p in (tmp_path / out).glob("*.tar")} for out in ("out", "killed"))
    assert first == again and len(first) == 8
    assert read_manifest(tmp_path / "out") == read_manifest(tmp_path / "killed")
    assert not [path for path in (tmp_path / "killed").iterdir() if "unfinished" in path.name or "tmp" in path.name]


@pytest.fixture
def stream(tmp_path):
    write_pieces(tmp_path / "p", tar_bytes(training_images("vsr", "cub", "sroie")), 3)
    build(config(tmp_path, tmp_path / "p", **GIVEN))
    return tmp_path / "p"


def test_three_kills(tmp_path, stream):
    positions = kill_and_finish(tmp_path, stream, 2, [0.0, 0.3, 0.7])
    assert positions == sorted(positions) and positions[1] > 0  # it went on, and did not begin again
    same(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_many_kills(tmp_path, stream, seed):
    rng = random.Random(seed)
    kill_and_finish(tmp_path, stream, seed % 3, [rng.uniform(-0.1, 0.9) for _ in range(3)])
    same(tmp_path)


class Stop(Exception):
    pass


def stopped(tmp_path, images, monkeypatch, place: str, times: int, **changes) -> None:
    """A build that ends by an exception the `times`-th time that something happens."""
    module, name = place.rsplit(".", 1)
    owner = sys.modules.get(module) or getattr(sys.modules[module.rsplit(".", 1)[0]], module.rsplit(".", 1)[1])
    real, left = getattr(owner, name), [times]

    def wrapped(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            raise Stop
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)
    with pytest.raises(Stop):
        build(config(tmp_path, images, **GIVEN, out=str(tmp_path / "killed"), **changes), checkpoint_every_s=0.0)
    monkeypatch.setattr(owner, name, real)


@pytest.mark.parametrize(
    ("place", "times"),
    [
        ("gp.data.building.packer.Packer.pack", 1),
        ("gp.data.building.packer.Packer.pack", 40),
        ("gp.data.building.packer.Packer.finish", 1),
        ("gp.data.building.journal.Journal.save", 1),
        ("gp.data.building.journal.Journal.save", 20),
        ("gp.data.building.publishing.update_manifest", 1),
        ("gp.data.building.publishing.update_manifest", 2),
        ("gp.data.building.journal.Journal.remove", 1),
    ],
)
@pytest.mark.parametrize("source", ["stream", "folder"])
def test_stopped_at_every_step(tmp_path, monkeypatch, place, times, source):
    images = training_images("vsr", "cub", "sroie")
    where = write_folder(tmp_path / "f", images) if source == "folder" else None
    if where is None:
        write_pieces(tmp_path / "p", tar_bytes(images), 3)
        where = tmp_path / "p"
    build(config(tmp_path, where, **GIVEN))
    stopped(tmp_path, where, monkeypatch, place, times)
    build(config(tmp_path, where, **GIVEN, out=str(tmp_path / "killed"), workers=2))
    same(tmp_path)


def test_what_is_done_is_not_done_again(tmp_path, stream, monkeypatch):
    stopped(tmp_path, stream, monkeypatch, "gp.data.building.packer.Packer.pack", 61)
    packed, real = [], Packer.pack
    monkeypatch.setattr(Packer, "pack", lambda self, task, report: (packed.append(task), real(self, task, report)))
    build(config(tmp_path, stream, **GIVEN, out=str(tmp_path / "killed")))
    assert len(packed) <= len(training_images("vsr", "cub", "sroie")) - 59
    same(tmp_path)


def test_an_unfinished_build_of_other_options_is_refused(tmp_path, stream, monkeypatch):
    stopped(tmp_path, stream, monkeypatch, "gp.data.building.packer.Packer.pack", 40)
    with pytest.raises(ValueError, match=r"unfinished build .* options\.seed 42, .*\b1; finish"):
        build(config(tmp_path, stream, **GIVEN, out=str(tmp_path / "killed"), seed=1))
    (stream / "cot_images_02").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"unfinished build .* source\.images\.pieces"):
        build(config(tmp_path, stream, **GIVEN, out=str(tmp_path / "killed")))


def test_an_unfinished_shard_that_was_changed_is_named(tmp_path, stream, monkeypatch):
    stopped(tmp_path, stream, monkeypatch, "gp.data.building.packer.Packer.pack", 60)
    shard = tmp_path / "killed" / ".v.unfinished" / "000000.tar.tmp"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{shard}: .*unfinished.*delete"):
        build(config(tmp_path, stream, **GIVEN, out=str(tmp_path / "killed")))
    (shard.parent / STATE).write_text("{")
    with pytest.raises(ValueError, match=r"state\.json: "):
        build(config(tmp_path, stream, **GIVEN, out=str(tmp_path / "killed")))


def test_stale_files_are_removed(tmp_path, stream, monkeypatch):
    stopped(tmp_path, stream, monkeypatch, "gp.data.building.packer.Packer.pack", 30)
    stale = tmp_path / "killed" / ".v.unfinished" / "000077.tar.tmp"
    stale.write_bytes(b"old")
    stopped(tmp_path, stream, monkeypatch, "gp.data.building.packer.Packer.pack", 1)
    assert not stale.exists()
    with (stale.parent / "000000.tar.tmp").open("ab") as file:
        file.write(b"what was written after the last entry of the journal" * 4000)
    build(config(tmp_path, stream, **GIVEN, out=str(tmp_path / "killed")))
    same(tmp_path)
