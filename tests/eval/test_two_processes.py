"""Two real processes share an evaluation of several questions an image: the figures of one process, exactly."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from gp.data.counts import count_samples
from gp.data.shards import read_records
from gp.eval import Process, evaluate, load_run
from tests.support.eval_results import results_in, summary_in
from tests.support.killing import start, wait
from tests.support.small_shards import add_manifest, write_tar


@pytest.fixture(scope="module")
def shards(micro, tmp_path_factory) -> list[str]:
    """The micro run's images with one to three questions each."""
    folder, written, counts = tmp_path_factory.mktemp("lists"), [], []
    for path in micro.shards:
        files: dict[str, bytes] = {}
        counts.append(0)
        for number, record in enumerate(read_records(path, "s")):
            fields = json.loads(record.files["json"])
            asked = [{**fields, "question": f"{fields['question']} {index}"} for index in range(1 + number % 3)]
            files[f"{record.key}.png"] = record.files["png"]
            files[f"{record.key}.json"] = json.dumps(asked if number % 3 else fields).encode()
            counts[-1] += len(asked)
        written.append(write_tar(folder / Path(path).name, files))
    add_manifest(written, counts)
    return written


def run(micro, shards, out: Path, process: Process | None = None) -> None:
    overrides = ["eval.pruners=[glimpse,random]", "eval.overlays=1", f"data.root={Path(shards[0]).parent}"]
    evaluate(*load_run(micro.ckpt, overrides), out, process=process)


def test_two_processes_equal_one(micro, shards, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    run(micro, shards, alone)
    barrier = multiprocessing.get_context("fork").Barrier(2)
    ranks = [start(run, micro, shards, shared, Process(rank, 2, barrier.wait)) for rank in range(2)]
    assert [wait(rank) for rank in ranks] == [0, 0]
    assert summary_in(shared) == summary_in(alone)
    one, two = results_in(alone), results_in(shared)
    assert set(two) == {name.replace(".jsonl", f".rank{rank}of2.jsonl") for name in one for rank in range(2)}
    for name, results in one.items():
        parts = [two[name.replace(".jsonl", f".rank{rank}of2.jsonl")] for rank in range(2)]
        assert all(parts) and sorted(parts[0] + parts[1], key=lambda result: result["id"]) == results
        assert len(results) == count_samples(shards) > 12 and any(result["id"].endswith(".2") for result in results)
