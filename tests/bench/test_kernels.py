"""Kernels and lengths through the command."""

from __future__ import annotations

import pytest
import torch

from gp.bench import kernels
from gp.bench.__main__ import main
from gp.bench.options import OptionError, Setup
from tests.support.bench_commands import run_bench

TINY = ("kernels", "--preset", "tiny", "--repeats", "1", "--new-tokens", "2", "--keep-ratio", "0.25")


def test_every_kernel_and_length_has_a_row_of_each_way(tmp_path):
    figures, markdown = run_bench(tmp_path, *TINY, "--attns", "eager,sdpa", "--visuals", "16,36")
    assert list(figures["cells"]) == ["eager", "sdpa"]
    assert all(list(cells) == ["16", "36"] for cells in figures["cells"].values())
    for cells in figures["cells"].values():
        for cell in cells.values():
            assert all(min(cell[part][way]) > 0 for part in ("prefill_s", "token_s") for way in kernels.WAYS)
            assert cell["prefill_bound"] > 1
    assert markdown.count("| pruned |") == markdown.count("| un-pruned |") == 4


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(tmp_path, monkeypatch):
    measure, model = kernels.measure, Setup.model

    def no_room_for_36(setup, *rest):
        if setup.preset.visual == 36:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return measure(setup, *rest)

    def no_eager(setup, *rest):
        if setup.attn == "eager":
            raise OptionError("--attn eager: not installed")
        return model(setup, *rest)

    monkeypatch.setattr(kernels, "measure", no_room_for_36)
    monkeypatch.setattr(Setup, "model", no_eager)
    figures, markdown = run_bench(tmp_path, *TINY, "--attns", "eager,sdpa", "--visuals", "36,16")
    assert figures["cells"]["eager"] == {"36": kernels.NO_KERNEL, "16": kernels.NO_KERNEL}
    assert figures["cells"]["sdpa"]["36"] == kernels.NO_ROOM
    assert min(figures["cells"]["sdpa"]["16"]["prefill_s"]["pruned"]) > 0
    assert "| sdpa | 36 | out of memory |" in markdown


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--visuals", "16,many", "numbers"), ("--attns", "sdpa,magic", "magic"), ("--new-tokens", "1", "2")],
)
def test_options_that_cannot_be(capsys, option, value, said):
    assert main([*TINY, option, value]) == 2
    assert said in capsys.readouterr().err
