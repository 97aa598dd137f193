"""Options that contradict each other, through the command."""

from __future__ import annotations

import pytest

from tests.support.config_files import refusal


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["prune.max_keep_ratio=0.1", "prune.fixed_keep_ratio=0.1"], "contradict each other"),
        (["model.min_pixels=100", "model.max_pixels=10"], "model.min_pixels 100 is more than model.max_pixels 10"),
        (["task=grpo", "trainer.compile=true"], "compile true: only task glimpse has a compiled step, got task grpo"),
        (["loss.dice=0", "loss.bce=0", "loss.answer=0"], "nothing would be trained"),
        (["glimpse.prune_layer=1", "glimpse.twig=2", "glimpse.read_layers=[4]"], "glimpse.twig 2: the tokens would be"),
        (
            ["glimpse.prune_layer=1", "glimpse.twig=2", "glimpse.read_layers=[2]"],
            "ends with layer 3, which must be read",
        ),
    ],
)
def test_options_that_contradict_each_other(minimal, given, expected, capsys):
    assert expected in refusal(capsys, str(minimal), *given)


def test_the_other_task_is_checked_too(capsys):
    config = "configs/tiny_seed.yaml"
    for given, expected in (
        ("joint_stage.lr=0", "command line: joint_stage.lr must be a number, more than 0, got 0"),
        ("model.vision_num_heads=3", "model.vision_hidden_size must be a multiple of 4 * model.vision_num_heads"),
        ("name=..", "name must be a folder inside runs_dir"),
    ):
        assert expected in refusal(capsys, config, given)
