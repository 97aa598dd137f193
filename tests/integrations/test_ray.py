"""Shards through Ray Data's actors: every question once, what is there is not answered again, other settings are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gp
from gp.data.sample import parse_record
from gp.data.shards import read_records
from gp.integrations.ray import RayConfig, file_of, keep_settings, left_to_do, main
from gp.serve.options import ServedModel
from tests.support.micro_run import save_base
from tests.support.small_shards import write_shards

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (3, 2, 4)


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "shards").mkdir()
    return [Path(one) for one in write_shards(tmp_path / "shards", list(COUNTS))]


def config_of(tmp_path, shards, **more):
    return RayConfig(ServedModel("tiny"), [str(one) for one in shards], str(tmp_path / "out"), **more)


def test_only_shards_without_answers_are_left(tmp_path, shards):
    out = tmp_path / "out"
    out.mkdir()
    config = config_of(tmp_path, shards)
    todo, done = left_to_do(config, out)
    assert [one["shard"] for one in todo] == [str(one) for one in shards] and done == 0
    file_of(out, todo[1]["name"]).write_text("")
    file_of(out, todo[0]["name"]).with_suffix(".jsonl.tmp").write_text("half of a shard")
    left, done = left_to_do(config, out)
    assert left == [todo[0], todo[2]] and done == 1
    with pytest.raises(ValueError, match="named twice"):
        left_to_do(config_of(tmp_path, [*shards, shards[0]]), out)


def test_answers_of_other_settings_are_not_gone_on_with(tmp_path, shards):
    keep_settings(config_of(tmp_path, shards), tmp_path)
    keep_settings(config_of(tmp_path, shards, workers=8), tmp_path)  # another number of actors is no other setting
    with pytest.raises(ValueError, match=r"made with prune=\{\}, got \{'budget': 0.1\}"):
        keep_settings(config_of(tmp_path, shards, prune={"budget": 0.1}), tmp_path)


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert main(["model.base=tiny", "shards=[x.tar]", f"out={tmp_path}", "worker=2"]) == 2
    assert "worker" in capsys.readouterr().err


@pytest.mark.slow
def test_two_actors_answer_every_question_once_and_go_on(tmp_path, shards):
    pytest.importorskip("ray")
    base, out = save_base(tmp_path / "base"), tmp_path / "out"
    command = [sys.executable, "-m", "gp.integrations.ray", f"model.base={base}", f"shards=[{tmp_path}/shards/*.tar]"]
    command += [f"out={out}", "workers=2", "max_new_tokens=4", "pruner=divprune", "prune.budget=0.5"]

    def answer() -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()[-1]

    assert answer().startswith(f"{sum(COUNTS)} questions answered; 0 shards")
    files = sorted(out.glob("*.jsonl"))
    first = {one: one.read_text() for one in files}
    found = [json.loads(line) for text in first.values() for line in text.splitlines()]
    samples = [parse_record(one) for shard in shards for one in read_records(str(shard), shard.stem)]
    assert [one["id"] for one in found] == [one.id for one in samples]
    model = gp.from_pretrained(base)
    for said, sample in zip(found, samples, strict=True):
        asked = model.ask(sample.image, sample.question, pruner="divprune", budget=0.5, max_new_tokens=4)
        assert (said["answer"], said["visual_tokens_kept"]) == (asked.text, asked.num_kept)
    files[1].unlink()  # as after a kill
    assert answer().startswith(f"{COUNTS[1]} questions answered; 2 shards")
    assert {one: one.read_text() for one in files} == first
    assert answer().startswith("0 questions answered; 3 shards")
