"""Speed, stages and host syncs of a prefill, through the command."""

from __future__ import annotations

from gp.bench.__main__ import main
from tests.support.bench_commands import assert_spread, run_bench


def test_through_the_command(tmp_path):
    figures, markdown = run_bench(tmp_path, "prefill", "--preset", "tiny", "--repeats", "2", "--prune-layer", "1")
    assert len(figures["prefill_s"]) == 4
    for spread in figures["prefill_s"].values():
        assert_spread(spread)
    including, excluding = figures["prefill"]["with the vision tower"], figures["prefill"]["without the vision tower"]
    assert including["speed_up"]["median"] > 0 and 1 < including["bound"] < excluding["bound"]
    assert figures["host_syncs"]["gp"] > 0
    assert "after layer 1" in markdown

    timed = {stage for stage, entry in figures["stages"].items() if entry["seconds"]["median"] > 0}
    costed = {stage for stage, entry in figures["stages"].items() if entry["flops"] > 0}
    layers = {"layers before", "prune layer", "layers after"}
    assert layers | {"vision", "glimpse read", "VIP", "head", "glimpse vectors"} == costed
    assert costed | {"selection", "compaction", "mask"} <= timed


def test_a_second_question(tmp_path, capsys):
    figures, markdown = run_bench(tmp_path, "prefill", "--preset", "tiny", "--repeats", "2", "--turns", "2")
    assert figures["turns"]["first"]["bound"] > 1 and figures["turns"]["fresh"]["speed_up"]["median"] > 0
    assert "second question" in markdown
    assert main(["prefill", "--preset", "tiny", "--turns", "3"]) == 2
    assert "--turns must be 1 or 2" in capsys.readouterr().err
