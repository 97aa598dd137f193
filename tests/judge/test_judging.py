"""A judge against a server that misbehaves: every answer gets its own score, none twice, none 0 by mistake."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("openai")

from gp.config.judge import JudgeConfig
from gp.judge import Case, Judge, Replies, judge_cases
from gp.judge.replies import key_of_request
from tests.support.chat_server import Say, case_in, chat_server

NUM_CASES = 1000
FAULTS = (
    Say(status=429, headers={"Retry-After": "0.05"}),
    Say(status=429, headers={"Retry-After-Ms": "20"}),
    Say(status=500),
    Say(drop="before"),
    Say(drop="within"),
    Say(body="<html>bad gateway</html>", headers={"Content-Type": "text/html"}),
    Say(body='{"choices": ['),
    Say(body='{"id": "1", "choices": []}'),
    Say("This answer is quite good."),
    Say("score: 0.1, no, wait\nscore: 0.9"),
)
PATIENCE_S = 300.0  # nothing but the test of time-outs hangs on how fast the machine is


def cases(count: int) -> list[Case]:
    return [Case(f"what is number {n} ?", str(n), f"it is {n}") for n in range(count)]


def right_score(case: dict[str, str]) -> float:
    """Another score for every case, and 0 for some of them."""
    return int(case["reference"]) % 11 / 10


def good(body: dict, before: int) -> Say:
    return Say(f"As far as it goes.\nscore: {right_score(case_in(body)):g}")


def config_for(url: str, **options) -> JudgeConfig:
    return JudgeConfig(**{"base_url": url, "model": "judge-1", "timeout_s": PATIENCE_S, "concurrency": 64, **options})


def as_first(fault: Say):
    return lambda body, before: fault if before == 0 else good(body, before)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.text[:12] or fault.drop or fault.body or "status")
def test_every_fault_is_asked_again(fault, tmp_path):
    with chat_server(as_first(fault)) as server:
        verdicts = judge_cases(config_for(server.url), cases(3), Replies(tmp_path))
        assert len(server.requests) == 6
    assert [verdict.score for verdict in verdicts] == [0.0, 0.1, 0.2]
    assert not any(verdict.problem for verdict in verdicts)


def test_a_reply_that_does_not_come_is_asked_for_again():
    with chat_server(as_first(Say("score: 1", delay_s=PATIENCE_S))) as server:
        verdicts = judge_cases(config_for(server.url, timeout_s=1.0), cases(3))
        assert [verdict.score for verdict in verdicts] == [0.0, 0.1, 0.2] and len(server.requests) >= 6


def test_a_thousand_answers_with_faults(tmp_path):
    rng, asked = Random(0), cases(NUM_CASES)
    faults = {case.question: rng.choice(FAULTS) for case in asked if rng.random() < 0.05}
    assert len(faults) > 30

    def answer(body: dict, before: int) -> Say:
        fault = faults.get(case_in(body)["question"]) if before == 0 else None
        return fault or good(body, before)

    advanced: list[int] = []
    with chat_server(answer) as server:
        config = config_for(server.url)
        verdicts = judge_cases(config, asked, Replies(tmp_path), lambda count, verdict: advanced.append(count))
        assert len(server.requests) == NUM_CASES + len(faults)
        again = judge_cases(config, asked, Replies(tmp_path))
        assert len(server.requests) == NUM_CASES + len(faults), "a second run asks nothing"
    assert [verdict.score for verdict in verdicts] == [int(case.answer) % 11 / 10 for case in asked]
    assert again == verdicts and sum(advanced) == NUM_CASES
    assert len({line["key"] for line in kept(tmp_path)}) == len(kept(tmp_path)) == NUM_CASES


def kept(folder: Path) -> list[dict]:
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_what_stays_bad_is_missing_and_asked_again_when_it_is_good(tmp_path):
    bad = {
        "0": Say("no idea"),
        "1": Say("score: 0.2 or score: 0.3"),
        "2": Say("score: 85"),
        "3": Say(status=500),
        "4": Say(body="{}"),
        "5": Say(status=400, body='{"error": {"message": "too long"}}'),
    }
    with chat_server(lambda body, before: bad.get(case_in(body)["reference"]) or good(body, before)) as server:
        config = config_for(server.url, max_retries=1)
        verdicts = judge_cases(config, cases(8), Replies(tmp_path))
        assert [verdict.score for verdict in verdicts] == [None] * 6 + [0.6, 0.7]
        problems = [verdict.problem for verdict in verdicts]
        assert problems[:3] == ["the reply does not give exactly one score"] * 3
        assert verdicts[0].reply == "no idea" and verdicts[2].reply == "score: 85"
        assert problems[3].startswith("status 500") and problems[4] == "replies are no chat completions"
        assert "too long" in problems[5]
        server.answer, before = good, len(server.requests)
        healed = judge_cases(config, cases(8), Replies(tmp_path))
        assert len(server.requests) == before + 6
    assert [verdict.score for verdict in healed] == [n / 10 for n in range(8)]


def test_an_endpoint_that_is_out_is_not_asked_for_ever(tmp_path):
    with chat_server(lambda body, before: Say(status=500)) as server:
        config = config_for(server.url, max_retries=1, concurrency=4)
        verdicts = judge_cases(config, cases(200), Replies(tmp_path))
        assert 16 <= len(server.requests) <= 24
    assert [verdict.score for verdict in verdicts] == [None] * 200
    assert verdicts[-1].problem.startswith("not asked: 8 answers before got no reply")
    assert not list(tmp_path.iterdir())


def test_nobody_listens(tmp_path):
    with chat_server(good) as server:
        url = server.url
    (verdict,) = judge_cases(config_for(url, max_retries=0), cases(1))
    assert verdict.score is None and verdict.problem.startswith("no connection")


def test_equal_answers_are_asked_once_and_the_bound_holds(tmp_path):
    calls = cases(12) * 3

    async def main(url: str) -> list:
        async with Judge(config_for(url, concurrency=3)) as judge:
            parts = await asyncio.gather(judge.judge_all(calls[:12]), judge.judge_all(calls[12:]))
            return [verdict.score for part in parts for verdict in part]

    def answer(body: dict, before: int) -> Say:
        return Say(good(body, before).text, delay_s=0.02)

    with chat_server(answer) as server:
        scores = asyncio.run(main(server.url))
        assert len(server.requests) == 24, "each call asks for its own cases once"
    assert scores == [n % 11 / 10 for n in range(12)] * 3


def ask_slowly(url: str, folder: Path) -> None:
    judge_cases(config_for(url, concurrency=2), cases(60), Replies(folder))


def test_a_kill_in_the_middle_loses_nothing(tmp_path):
    with chat_server(lambda body, before: Say(good(body, before).text, delay_s=0.01)) as server:
        process = multiprocessing.get_context("spawn").Process(target=ask_slowly, args=(server.url, tmp_path))
        process.start()
        limit = time.monotonic() + PATIENCE_S
        while len(server.requests) < 20 and time.monotonic() < limit:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done = len(server.requests)
        assert 20 <= done < 60
        verdicts = judge_cases(config_for(server.url), cases(60), Replies(tmp_path))
        assert len(server.requests) <= 60 + 2, "at most those that were on their way are asked again"
    assert [verdict.score for verdict in verdicts] == [n % 11 / 10 for n in range(60)]


def test_half_a_line_is_not_read_and_a_wrong_one_is_named(tmp_path):
    Replies(tmp_path).keep("a", "score: 1")
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text() + '{"key": "b", "rep')
    replies = Replies(tmp_path)
    assert (replies.get("a"), replies.get("b")) == ("score: 1", None)
    replies.keep("b", "score: 0\nµ")
    assert Replies(tmp_path).get("b") == "score: 0\nµ"
    path.write_text('{"reply": 1}\n')
    with pytest.raises(ValueError, match=r"jsonl, line 1: not a reply"):
        Replies(tmp_path)


def test_a_reply_is_found_by_all_that_it_depends_on():
    request = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0, "max_tokens": 5}
    others = [{**request, "model": "n"}, {**request, "temperature": 1}, {**request, "messages": []}]
    keys = [key_of_request(one, "rubric", 1) for one in (request, *others)]
    keys += [key_of_request(request, "original", 1), key_of_request(request, "rubric", 2)]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of_request(dict(reversed(request.items())), "rubric", 1)


def test_requests_hold_the_settings():
    with chat_server(good) as server:
        judge_cases(config_for(server.url, extra={"top_p": 0.5, "thinking": {"on": False}}), cases(1))
        judge_cases(config_for(server.url, max_tokens=None), cases(1))
    first, second = server.requests
    assert (first["temperature"], first["max_tokens"], first["top_p"]) == (0, 512, 0.5)
    assert first["thinking"] == {"on": False} and "max_tokens" not in second


def test_a_refused_key_and_an_unknown_model_are_one_error(monkeypatch):
    secret = "sk-very-secret"
    monkeypatch.setenv("JUDGE_KEY", secret)
    refusal = Say(status=401, body=json.dumps({"error": {"message": f"wrong key {secret}"}}))
    with chat_server(lambda body, before: refusal) as server:
        with pytest.raises(ValueError, match=r"refuses the key \(401\): environment variable JUDGE_KEY$") as caught:
            judge_cases(config_for(server.url, key_env="JUDGE_KEY"), cases(50))
        assert server.keys[0] == f"Bearer {secret}" and len(server.requests) <= 64
        with pytest.raises(ValueError, match="unknown model 'judge-2', the endpoint has judge-1; the nearest"):
            judge_cases(config_for(server.url, model="judge-2"), cases(50))
        server.answer = lambda body, before: Say(status=500, body=json.dumps({"error": {"message": secret}}))
        (verdict,) = judge_cases(config_for(server.url, key_env="JUDGE_KEY", max_retries=0), cases(1))
    assert secret not in f"{caught.value} {caught.value.__cause__} {verdict.problem}"
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ValueError, match="key_env=JUDGE_KEY: no such variable"):
        judge_cases(config_for("http://127.0.0.1:1/v1", key_env="JUDGE_KEY"), cases(1))
