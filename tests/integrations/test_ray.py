"""Shards through Ray Data's actors: every question once, also after a kill; other settings are refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gp
from gp.data.sample import parse_record
from gp.data.shards import read_records
from gp.integrations import ray as module
from gp.integrations.ray import RayConfig, ShardAnswerer, answer_shards, keep_settings, main, named_shards
from gp.serve.options import ServedModel
from tests.support.micro_run import save_base, write_samples
from tests.support.small_shards import write_shards

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (3, 2, 4)


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "shards").mkdir()
    return [Path(one) for one in write_shards(tmp_path / "shards", list(COUNTS))]


def config_of(tmp_path, shards, **more):
    return RayConfig(ServedModel("tiny"), [str(one) for one in shards], str(tmp_path / "out"), **more)


def test_a_file_goes_on_to_mean_the_same_shard(tmp_path, shards):
    few, all_three = config_of(tmp_path, shards[:2]), config_of(tmp_path, shards)
    keep_settings(few, named_shards(few), tmp_path)
    keep_settings(all_three, named_shards(all_three), tmp_path)  # more shards are welcome
    (tmp_path / "other").mkdir()
    others = [Path(one) for one in write_shards(tmp_path / "other", [1])]
    for named in ([*others], [*shards, *others]):  # s0 of another folder; both, told apart as other/s0 and shards/s0
        config = config_of(tmp_path, named)
        with pytest.raises(ValueError, match=r"settings\.json: these answers were made from .*s0\.tar.*another out"):
            keep_settings(config, named_shards(config), tmp_path)
    with pytest.raises(ValueError, match=r"s0\.tar is named twice"):
        named_shards(config_of(tmp_path, [*shards, shards[0]]))


def test_answers_of_other_settings_are_not_gone_on_with(tmp_path, shards):
    keep_settings(config_of(tmp_path, shards), {}, tmp_path)
    keep_settings(config_of(tmp_path, shards, workers=8), {}, tmp_path)  # another number of actors is no other setting
    with pytest.raises(ValueError, match=r"made with prune=\{\}, got \{'budget': 0.1\}"):
        keep_settings(config_of(tmp_path, shards, prune={"budget": 0.1}), {}, tmp_path)


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert main(["model.base=tiny", "shards=[x.tar]", f"out={tmp_path}", "worker=2"]) == 2
    assert "worker" in capsys.readouterr().err


def test_without_ray_nothing_is_written(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'^ray is not installed: pip install "glimpse-prune\[ray\]"$'):
        answer_shards(config_of(tmp_path, shards))
    assert not (tmp_path / "out").exists()


def test_an_actor_answers_whole_shards_and_says_what_is_wrong(tmp_path, shards, monkeypatch):
    """All but Ray, whose place one actor in this process takes."""
    out, whole = tmp_path / "out", shards[1].read_bytes()
    shards[1].write_bytes(whole[:3000])
    config = config_of(tmp_path, shards, max_new_tokens=2)
    config.model.base = save_base(tmp_path / "base")
    dealt = []

    def here(config, todo, out):
        actor = ShardAnswerer(config, str(out))
        dealt.append(list(todo))
        told = actor({"shard": list(todo.values()), "name": list(todo)})
        return [{"answered": count, "wrong": wrong} for count, wrong in zip(*told.values(), strict=True)]

    monkeypatch.setattr(module, "on_ray", here)
    monkeypatch.setattr(module, "need_ray", lambda: None)
    with pytest.raises(ValueError, match=r"^shard .*s1\.tar: truncated.* \(1 of 3 shards were not answered\)$"):
        answer_shards(config)
    assert sorted(one.name for one in out.glob("*.jsonl*")) == ["s0.jsonl", "s2.jsonl"]
    shards[1].write_bytes(whole)
    (out / "s1.jsonl.0a1b.tmp").write_text("of a killed actor")
    assert answer_shards(config) == (COUNTS[1], 2)
    assert answer_shards(config) == (0, 3)
    assert dealt == [["s0", "s1", "s2"], ["s1"]]
    assert sorted(one.name for one in out.glob("*.jsonl*")) == ["s0.jsonl", "s1.jsonl", "s2.jsonl"]
    config.out, config.model.base = str(tmp_path / "other"), str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"nowhere.* \(3 of 3 shards"):
        answer_shards(config)


def started(tmp_path, base, shards):
    """The command on two actors, in a process."""
    command = [
        sys.executable,
        "-m",
        "gp.integrations.ray",
        f"model.base={base}",
        f"shards=[{','.join(map(str, shards))}]",
    ]
    command += [f"out={tmp_path}/out", "workers=2", "max_new_tokens=4", "pruner=divprune", "prune.budget=0.5"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process) -> tuple[int, str, str]:
    """Status, last line and messages of a process."""
    said, wrong = process.communicate(timeout=400)
    return process.returncode, (said.splitlines() or [""])[-1], wrong


def answers_in(out: Path) -> list[dict]:
    return [json.loads(line) for one in sorted(out.glob("*.jsonl")) for line in one.read_text().splitlines()]


@pytest.mark.slow
def test_two_actors_killed_and_started_again_answer_every_question_once(tmp_path):
    pytest.importorskip("ray")
    base, out, counts = save_base(tmp_path / "base"), tmp_path / "out", (2, 300, 300, 3)
    first = [sum(counts[:number]) for number in range(4)]
    shards = [
        write_samples(tmp_path / f"s{number}.tar", range(start, start + count))
        for number, (start, count) in enumerate(zip(first, counts, strict=True))
    ]
    process = started(tmp_path, base, shards)
    until = time.monotonic() + 300
    while not list(out.glob("*.jsonl")):
        assert time.monotonic() < until and process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)
    process.kill()
    process.communicate()
    time.sleep(3)  # Ray's processes end with the one that started them
    there = {one: (one.stat().st_mtime_ns, one.read_text()) for one in out.glob("*.jsonl")}
    assert 1 <= len(there) < len(shards)
    status, said, wrong = ended(started(tmp_path, base, shards))
    rest = sum(counts) - sum(len(text.splitlines()) for _, text in there.values())
    assert status == 0 and said.startswith(f"{rest} questions answered; {len(there)} shards"), said + wrong[-3000:]
    assert {one: (one.stat().st_mtime_ns, one.read_text()) for one in there} == there
    assert sorted(one.name for one in out.glob("*.jsonl*")) == [f"s{number}.jsonl" for number in range(4)]

    found = answers_in(out)
    samples = [parse_record(one) for shard in shards for one in read_records(shard, Path(shard).stem)]
    assert [one["id"] for one in found] == [one.id for one in samples]  # each once, in the shards' order
    model = gp.from_pretrained(base)
    assert any(one["answer"] for one in found)
    for said, sample in list(zip(found, samples, strict=True))[::50]:
        asked = model.ask(sample.image, sample.question, pruner="divprune", budget=0.5, max_new_tokens=4)
        assert (said["answer"], said["visual_tokens_kept"]) == (asked.text, asked.num_kept)


@pytest.mark.slow
def test_a_damaged_shard_is_one_error_and_stops_no_other(tmp_path, shards):
    pytest.importorskip("ray")
    base, whole = save_base(tmp_path / "base"), shards[1].read_bytes()
    shards[1].write_bytes(whole[:3000])
    status, _, wrong = ended(started(tmp_path, base, shards))
    assert status == 2 and wrong.count("error: ") == 1 and "Traceback" not in wrong
    assert wrong.splitlines()[-1].startswith(f"error: shard {shards[1]}: truncated")
    assert wrong.splitlines()[-1].endswith("(1 of 3 shards were not answered)")
    assert len(answers_in(tmp_path / "out")) == COUNTS[0] + COUNTS[2]
    shards[1].write_bytes(whole)
    assert ended(started(tmp_path, base, shards))[1].startswith(f"{COUNTS[1]} questions answered; 2 shards")
    assert len({one["id"] for one in answers_in(tmp_path / "out")}) == sum(COUNTS)
