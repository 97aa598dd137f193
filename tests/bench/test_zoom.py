"""Cost and speed of zoom, through the command."""

from __future__ import annotations

import pytest

from gp.bench.__main__ import main
from tests.support.bench_commands import assert_spread, run_bench


def test_through_the_command(tmp_path):
    figures, markdown = run_bench(tmp_path, "zoom", "--preset", "tiny", "--visual", "64", "--repeats", "2")
    assert set(figures["prefill_s"]) == {"none", "glimpse", "downsample", "zoom"}
    for spread in figures["prefill_s"].values():
        assert_spread(spread)
    assert figures["prefill"]["zoom"]["bound"] == pytest.approx(figures["flops"]["none"] / figures["flops"]["zoom"])
    assert "16 (4 kept) + crop of 9" in markdown


@pytest.mark.parametrize("preset", ["qwen3b", "qwen7b"])
@pytest.mark.parametrize("visual", [4096, 16384])
def test_three_times_fewer_operations_at_real_sizes(tmp_path, preset, visual):
    """With a crop of a tenth of the image and a quarter of the copy kept, by the cost model alone."""
    figures, _ = run_bench(tmp_path, "zoom", "--preset", preset, "--visual", str(visual), "--cost")
    assert figures["flops"]["none"] / figures["flops"]["zoom"] > 3
    assert "prefill_s" not in figures


def test_a_share_out_of_range(capsys):
    assert main(["zoom", "--preset", "tiny", "--crop", "1.5"]) == 2
    assert "--crop must be in (0, 1]" in capsys.readouterr().err
