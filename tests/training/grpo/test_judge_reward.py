"""The reward `judge`, through train.py, against a server that misbehaves."""

from __future__ import annotations

import json
import threading
import time

import pytest
import torch

pytest.importorskip("peft")
pytest.importorskip("openai")

import train as train_command
from gp.config.plus import PlusConfig, RewardConfig, RewardJudgeConfig
from gp.metrics.scorers import SCORERS
from gp.training.grpo import judge_reward, module
from gp.training.grpo.judge_reward import JudgeAway, JudgeReward
from gp.training.grpo.rewards import Answered, WeightedRewards
from tests.support.chat_server import Say, case_in, chat_server
from tests.support.micro_plus import SETTINGS, write_plus_config
from tests.support.micro_run import save_base

ANSWERS = [Answered("what is it ?", "stop", said) for said in ("stop", "shop", "red")]
SCORES = {"stop": 1.0, "shop": 0.5, "red": 0.0}


def good(body: dict, before: int) -> Say:
    return Say(f"score: {SCORES[case_in(body)['answer']]:g}")


def config_for(folder, url, **judge) -> PlusConfig:
    judge = {"base_url": url, "model": "judge-1", "max_retries": 0, "timeout_s": 60.0, **judge}
    weights = RewardConfig({"judge": 1.0})
    return PlusConfig(name="x", runs_dir=str(folder), reward=weights, judge=RewardJudgeConfig(**judge))


def test_scores_and_cache_and_weighted_sum(tmp_path):
    with chat_server(good) as server:
        config = config_for(tmp_path, server.url)
        assert JudgeReward(config).start(ANSWERS)() == [1.0, 0.5, 0.0]
        config.reward.weights = {"judge": 2.0, "exact": 1.0, "anls": 0.0}
        assert WeightedRewards(config).start(ANSWERS)().tolist() == [3.0, 1.0, 0.0]
        assert len(server.requests) == 3, "the second object reads the first one's replies"
    assert list((tmp_path / "x/judge-cache").glob("replies-*.jsonl"))


def test_the_caller_goes_on_while_the_judge_thinks(tmp_path):
    asked, may_answer = threading.Event(), threading.Event()

    def answer(body: dict, before: int) -> Say:
        asked.set()
        return good(body, before) if may_answer.is_set() else Say(status=500)

    with chat_server(answer) as server:
        waiting = JudgeReward(config_for(tmp_path, server.url)).start(ANSWERS)
        assert asked.wait(30)  # and yet `start` has returned
        may_answer.set()
        assert waiting() == [1.0, 0.5, 0.0]


def test_a_judge_that_is_away_is_waited_for_and_no_reward_is_0(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(judge_reward, "PAUSE_S", 0.01)
    faults = [Say(drop="before"), Say(status=500), Say(drop="within"), Say(status=429)]
    with chat_server(lambda body, before: faults[before] if before < len(faults) else good(body, before)) as server:
        assert JudgeReward(config_for(tmp_path, server.url)).start(ANSWERS)() == [1.0, 0.5, 0.0]
    assert "judge: away" in caplog.text and "back" in caplog.text


def test_a_judge_that_stays_away_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_reward, "PAUSE_S", 0.01)
    with chat_server(lambda body, before: Say(status=500)) as server:
        waiting = JudgeReward(config_for(tmp_path, server.url, patience_s=0.05)).start(ANSWERS)
        with pytest.raises(JudgeAway, match=r"away for 0.05 s \(status 500.*ckpt=auto"):
            waiting()


def test_what_it_refuses_has_no_reward(tmp_path):
    """An answer that is refused is missing at once, and one whose reply has no score; the rest is scored."""
    bad = {"shop": Say(status=400, body='{"error": {"message": "too long"}}'), "red": Say("hard to say")}
    with chat_server(lambda body, before: bad.get(case_in(body)["answer"]) or good(body, before)) as server:
        assert JudgeReward(config_for(tmp_path, server.url)).start(ANSWERS)() == [1.0, None, None]


def test_an_unknown_model_is_a_mistake(tmp_path):
    with chat_server(good) as server, pytest.raises(ValueError, match=r"unknown model 'judge-2'.*'judge-1'"):
        JudgeReward(config_for(tmp_path, server.url, model="judge-2")).start(ANSWERS)()


@pytest.mark.slow
def test_the_judge_reads_while_the_next_answers_are_drawn(tmp_path, monkeypatch):
    """A step of three micro-batches: no reply before the next one is drawn, and the weights of the same reward at once.

    The judge's score is ANLS, so that the run equals one with the reward `anls`.
    """
    base = save_base(tmp_path / "base")
    num_drawn, waits, real_draw, real_start = 0, [], module.roll_out, JudgeReward.start

    def roll_out(*arguments):
        nonlocal num_drawn
        num_drawn += 1
        return real_draw(*arguments)

    def start(self, answers):
        waiting, number = real_start(self, answers), num_drawn

        def wait():
            waits.append((number, num_drawn))
            return waiting()

        return wait

    def answer(body: dict, before: int) -> Say:
        case = case_in(body)
        return Say(f"score: {SCORERS['anls'](case['answer'], case['reference']):.9f}")

    monkeypatch.setattr(module, "roll_out", roll_out)
    monkeypatch.setattr(JudgeReward, "start", start)
    common = [*SETTINGS, "trainer.accumulate_grad_batches=3", "optim.max_steps=2", "trainer.val_every=9"]
    found = {}
    with chat_server(answer) as server:
        judge = ["reward.weights={exact: 0, anls: 0, judge: 1}", f"judge.base_url={server.url}", "judge.model=judge-1"]
        for name, more in (("judge", judge), ("anls", [])):
            write_plus_config(tmp_path / name, base)
            assert train_command.main(["--config", str(tmp_path / name / "micro.yaml"), *common, *more]) == 0
            found[name] = torch.load(tmp_path / name / "runs/micro/last.ckpt", weights_only=True)["state_dict"]
    assert waits == [(1, 2), (2, 3), (3, 3), (4, 5), (5, 6), (6, 6)] and server.requests
    assert any(float(weight.abs().max()) > 0 for name, weight in found["anls"].items() if "lora_B" in name)
    for name, weight in found["anls"].items():
        assert torch.allclose(found["judge"][name], weight, atol=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("away_s", [4, 66])
def test_a_run_outlives_an_outage(away_s, tmp_path):
    """Through train.py: drops every connection for some time behind the first step; the run waits, and ends well.

    Rewards are of the answers' lengths, so that each question's answers differ, and none is 0: a 0 could only come
    from the outage.
    """
    began: list[float] = []
    refused = 0

    def answer(body: dict, before: int) -> Say:
        nonlocal refused
        began.append(time.monotonic())
        since_s = time.monotonic() - began[0]
        if 0.5 < since_s < 0.5 + away_s:
            refused += 1
            return Say(drop="before")
        said = case_in(body)["answer"]
        return Say(f"score: {0.1 + 0.9 / (1 + len(said)):.3f}", delay_s=0.3)

    write_plus_config(tmp_path, save_base(tmp_path / "base"))
    with chat_server(answer) as server:
        weights = "reward.weights={exact: 0, anls: 0, judge: 1}"
        judge = (f"judge.base_url={server.url}", "judge.model=judge-1", "judge.max_retries=1")
        config = ["--config", str(tmp_path / "micro.yaml"), *SETTINGS, weights, *judge, "trainer.log_every=1"]
        assert train_command.main([*config, "trainer.logger=csv"]) == 0
    figures = json.loads((tmp_path / "runs/micro/run.json").read_text())["figures"]
    assert refused > 0 and figures["train/skipped_questions"] == 0 == figures["train/unscored_answers"]
    (curves,) = (tmp_path / "runs/micro").rglob("metrics.csv")
    rows = [line.split(",") for line in curves.read_text().splitlines()]
    column = {name: [row[k] for row in rows[1:] if row[k]] for k, name in enumerate(rows[0])}
    assert len(column["train/reward"]) == 4 and min(map(float, column["train/reward"])) > 0.1
    assert set(map(float, column["train/unscored_answers"])) == {0.0}
    assert max(map(float, column["perf/reward_wait_s"])) > away_s - 2
    assert time.monotonic() - began[0] > away_s
