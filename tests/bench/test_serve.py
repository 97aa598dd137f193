"""The bench of servers: streams are timed as they come, rows add up, mistakes end it before a server starts."""

from __future__ import annotations

import json
import re

import pytest

from gp.bench.__main__ import main
from tests.support.bench_commands import assert_spread, run_bench
from tests.support.chat_server import Say, chat_server
from tests.support.micro_run import ANSWERS, write_samples

pytest.importorskip("httpx2", reason="needs the extra serve")

from gp.bench.serve import summarize, table_of
from gp.bench.serve_clients import Timed, Way, ask_all
from gp.bench.serve_questions import Question, read_questions
from gp.bench.serve_rounds import Cell

QUESTIONS = [Question([{"role": "user", "content": str(number)}], str(number)) for number in range(5)]


def stream(*pieces: dict) -> Say:
    lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    return Say(body="".join([*lines, "data: [DONE]\n\n"]), headers={"content-type": "text/event-stream"}, delay_s=0.05)


def say_it_again(body: dict, _: int) -> Say:
    words = [body["messages"][0]["content"], " !"]
    usage = {"choices": [], "usage": {"completion_tokens": 2}}
    return stream(*({"choices": [{"delta": {"content": word}}]} for word in words), usage)


def test_answers_in_the_order_of_their_questions():
    with chat_server(say_it_again) as server:
        way = Way("echo", server.url, "judge-1", {"mm_processor_kwargs": {"budget": 0.5}})
        answers, seconds = ask_all(way, QUESTIONS, 3, 16)
    assert [one.text for one in answers] == [f"{number} !" for number in range(5)]
    assert all(0.05 <= one.first_s <= one.last_s <= seconds and one.tokens == 2 for one in answers)
    assert seconds < 5 * 0.05 + sum(one.last_s for one in answers)
    assert {body["mm_processor_kwargs"]["budget"] for body in server.requests} == {0.5}
    assert all(body["stream"] and body["temperature"] == 0 for body in server.requests)


def test_a_server_that_refuses_is_named_with_what_it_said():
    with (
        chat_server(lambda body, _: Say(status=400, body='{"error": "no picture"}')) as server,
        pytest.raises(ValueError, match=r"refuser: status 400: .*no picture"),
    ):
        ask_all(Way("refuser", server.url, "judge-1", {}), QUESTIONS, 1, 16)


def test_rows_by_hand():
    slow = Cell([1.0, 2.0, 4.0], [Timed("7", 0.5, 1.5, 3)] * 4, [True, True, True, False])
    fast = Cell(
        [2.0, 6.0, 4.0], [Timed(text, 0.5, 0.5, 1) for text in ("7", "8", "8", " 7 ")], [True, False, False, False]
    )
    rows = first, second = summarize({(8, "front"): slow, (8, "plug-in"): fast})
    assert "x front" in table_of(rows, "of the first way").columns
    assert first["speed_up"].median == 1 and first["token_s"].median == 0.5 and first["accuracy"] == 0.75
    assert first["equal"] == {"front": 4, "plug-in": 2} and second["equal"] == {"front": 2, "plug-in": 4}
    assert table_of(rows, "").rows[1][-1] == "2"
    assert second["speed_up"].median == 2 and second["token_s"] is None and second["accuracy"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "fastv"], "--methods must be of .*divprune.*got fastv"),
        (["--base", "mine", "--ways", "plugin", "--methods", "glimpse"], "--methods glimpse .* give --glimpse"),
        (["--budget", "0"], r"--budget must be in \(0, 1\], got 0"),
        (["--concurrency", "0"], "--concurrency must be 1 or more, got 0"),
        (["--ways", "front"], "--ways front stands before vLLM"),
        (["--base", "mine", "--ways", "vllm", "front"], "give --glimpse"),
    ],
)
def test_mistakes_end_it_before_a_server_starts(arguments, said, capsys):
    assert main(["serve", *arguments]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_no_question_is_asked_twice(tmp_path):
    shard = write_samples(tmp_path / "a.tar", range(3))
    assert [one.answer for one in read_questions([shard], tmp_path, 3)] == [ANSWERS[number] for number in range(3)]
    with pytest.raises(ValueError, match=r"4 questions are needed .*none is asked twice.*got 3"):
        read_questions([shard], tmp_path, 4)


@pytest.mark.slow  # loads the embedded model in two processes
def test_our_own_server_through_the_command(tmp_path):
    arguments = ["--ways", "gp", "--samples", "2", "--rounds", "2", "--concurrency", "1", "2", "--root", str(tmp_path)]
    figures, markdown = run_bench(tmp_path, "serve", *arguments)
    assert [(row["concurrency"], row["way"], row["questions"]) for row in figures["rows"]] == [
        (1, "gp.serve", 4),
        (2, "gp.serve", 4),
    ]
    for row in figures["rows"]:
        assert_spread(row["requests_per_s"])
        assert_spread(row["first_s"])
        assert row["accuracy"] >= 0.5
    assert "gp.serve" in markdown and figures["command"].startswith("python -m gp.bench serve")
