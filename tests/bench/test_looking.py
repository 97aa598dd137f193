"""Accuracy and speed of zoom by copy and gate, through the command."""

from __future__ import annotations

import pytest
import torch

from gp.bench.__main__ import main
from gp.modules import Gate
from gp.training import train as runs
from tests.support.bench_commands import assert_spread, run_bench
from tests.support.micro_run import save_base, write_config


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of untrained parts with an untrained gate, and the config beside it."""
    folder = tmp_path_factory.mktemp("looking")
    config = write_config(folder, save_base(folder / "base"))
    torch.manual_seed(0)
    model = runs.build_model(config)
    model.glimpse.gate = Gate(model.backbone.hidden_size)
    torch.nn.init.constant_(model.glimpse.gate.linear.bias, 9.0)  # the copy is always enough
    return model.save_pretrained(folder / "parts"), folder / "micro.yaml"


def test_through_the_command(parts, tmp_path):
    folder, config = parts
    more = ("--config", str(config), "--samples", "3", "--glances", "1/4", "--figure", str(tmp_path / "speed"))
    figures, markdown = run_bench(tmp_path, "looking", str(folder), *more)
    rows = {row["way"]: row for row in figures["rows"]}
    gates = ("always", "rule", "trained", "never")
    assert set(rows) == {"none", "glimpse", "downsample as 1/4", *(f"zoom 1/4, {gate}" for gate in gates)}
    for row in rows.values():
        assert_spread(row["speed_up"])
        assert_spread(row["prefill_speed_up"])
        assert row["questions_per_s"] > 0 and 0 <= row["accuracy"] <= 1
    assert rows["none"]["encoded"] == 8 and rows["zoom 1/4, never"]["encoded"] == 2
    assert rows["zoom 1/4, always"]["zoomed"] == 1 and rows["zoom 1/4, trained"]["zoomed"] == 0
    assert 2 < rows["downsample as 1/4"]["encoded"] <= rows["zoom 1/4, always"]["encoded"]
    assert rows["none"]["prefill_bound"] == 1 < rows["zoom 1/4, never"]["prefill_bound"]
    assert rows["zoom 1/4, trained"]["prefill_bound"] == rows["zoom 1/4, never"]["prefill_bound"]  # no crop, either
    assert rows["zoom 1/4, always"]["prefill_bound"] < rows["zoom 1/4, never"]["prefill_bound"]
    assert "| zoom 1/4, trained |" in markdown
    assert all((tmp_path / f"speed.{suffix}").stat().st_size > 1000 for suffix in ("png", "svg"))


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--glances", "2/1"], "--glances must be"), (["--split", "none"], "--split must be one of test")],
)
def test_options_that_cannot_be(parts, capsys, more, message):
    folder, config = parts
    assert main(["looking", str(folder), "--config", str(config), *more]) == 2
    assert message in capsys.readouterr().err
