"""Decoding, through the command."""

from __future__ import annotations

from gp.bench import decode
from gp.bench.__main__ import main
from gp.engine.compiled import CompiledDecoding
from tests.support.bench_commands import assert_spread, run_bench


def test_decode(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "in_own_process", lambda *_: {"prefill": 3.0, "held": 1.0, "decode": 2.0})
    arguments = ("--preset", "tiny", "--repeats", "2", "--new-tokens", "3", "--keep-ratio", "0.25")
    figures, markdown = run_bench(tmp_path, "decode", *arguments)
    assert list(figures["ways"]) == list(decode.WAYS)
    for entry in figures["ways"].values():
        assert_spread(entry["step_s"])
    caches = {way: entry["cache_mib"] * 2**20 for way, entry in figures["ways"].items()}
    token = 3 * 2 * 32 * 4  # layers, keys and values, width, bytes
    assert caches == {"un-pruned": 22 * token, "pruned": 10 * token, "short from the start": 10 * token}
    assert figures["against_unpruned"]["pruned"]["bound"] > 1
    assert "4 kept" in markdown


def test_compiled_ways_stand_beside_the_plain_ones(tmp_path, monkeypatch):
    """The graph is captured and run as it is: making code of it is the compiler's work, and takes long."""
    monkeypatch.setattr(decode, "in_own_process", lambda *_: {"prefill": 3.0, "held": 1.0, "decode": 2.0})
    made: list[CompiledDecoding] = []
    captured = lambda backbone: made[0] if made else made.append(CompiledDecoding(backbone, "eager")) or made[0]  # noqa: E731
    monkeypatch.setattr("gp.model.compiled_decoding", captured)
    arguments = ("--preset", "tiny", "--repeats", "1", "--new-tokens", "3", "--keep-ratio", "0.25", "--compile")
    figures, markdown = run_bench(tmp_path, "decode", *arguments)
    assert {way: entry["same_ids"] for way, entry in figures["compiled"].items()} == {"un-pruned": 1.0, "pruned": 1.0}
    assert [entry["graphs"] for entry in figures["compiled"].values()] == [1, 0]  # one graph for both lengths
    assert "un-pruned / un-pruned, compiled" in markdown and not made[0].broken


def test_memory_of_one_way(capsys):
    assert main(["decode", "--preset", "tiny", "--new-tokens", "2", "--memory-of", "pruned"]) == 0
    assert '"held"' in capsys.readouterr().out
