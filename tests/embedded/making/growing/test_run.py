"""All stages on a micro base: they train, write a stock folder, and go on after a kill with the same weights."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from gp.backbones.processor import load_processor
from gp.config.pretrain_cards import CountStageConfig, FinalStageConfig, JointStageConfig
from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.evaluate import Answerer
from gp.embedded.making.growing.joint_stream import JointStream
from gp.embedded.making.growing.run import run
from gp.embedded.making.growing.tower_stream import TowerStream
from tests.support.micro_growing import growing_config, save_micro_base


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    return save_micro_base(tmp_path_factory.mktemp("init"))


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory, init):
    folder = tmp_path_factory.mktemp("runs")
    run(growing_config(folder, init, val_every_steps=4))
    return folder / "micro"


def test_run_trains_and_writes_everything(straight_run, init):
    names = {path.name for path in straight_run.iterdir()}
    assert {"base", "tower.ckpt", "joint.ckpt", "final.ckpt", "final.log", "config.yaml", "run.json", "tb"} <= names
    lines = (straight_run / "joint.log").read_text().splitlines()
    losses = [float(line.split("train/loss_answer=")[1].split()[0]) for line in lines if "loss_answer=" in line]
    assert losses and all(math.isfinite(loss) for loss in losses)
    assert any("val/16x16/zoom_halftone=" in line for line in lines)
    stored = load_file(straight_run / "base" / "model.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in stored.values())
    before = Qwen2_5_VLForConditionalGeneration.from_pretrained(init)
    after = Qwen2_5_VLForConditionalGeneration.from_pretrained(straight_run / "base")
    assert after.dtype == torch.float32
    assert len(after.model.language_model.layers) == len(before.model.language_model.layers) + 2
    old, new = before.model.visual.state_dict(), after.model.visual.state_dict()
    assert all(not torch.equal(new[name], tensor) for name, tensor in old.items() if tensor.ndim > 1)


def test_the_folder_answers_as_stock_transformers(straight_run):
    samples = [draw_sample(SceneBuilder("val"), kind, 8, 8, 0) for kind in ("color", "zoom", "turns")]
    assert len(Answerer(straight_run / "base").answer(samples)) == 3
    assert load_processor(straight_run / "base").image_processor.size.longest_edge == 784**2


def test_the_result_is_between_the_weights_before_and_after_the_last_stage(straight_run, init, tmp_path):
    """The same run but for `blend`: float16 of the mean, of the final stage's end and of the count stage's."""
    run(growing_config(tmp_path, init, count_stage=CountStageConfig(steps=1, evidence_layer=3, blend=0.25)))
    result = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "micro" / "base").state_dict()
    ends = [torch.load(straight_run / f"{name}.ckpt", weights_only=True)["state_dict"] for name in ("final", "count")]
    moved = 0
    for name, weight in result.items():
        before, after = (end[f"model.{name}"] for end in ends)
        torch.testing.assert_close(weight, 0.75 * before + 0.25 * after, rtol=1e-3, atol=1e-6)  # of float16
        moved += not torch.equal(weight, before.half().float())
    assert moved > len(result) / 2  # else any mean would do


@pytest.mark.parametrize(("stream", "killed_at"), [(TowerStream, 1), (JointStream, 3)])
def test_resume_after_a_kill(straight_run, init, tmp_path, monkeypatch, stream, killed_at):
    """Killed in either stage, the run goes on with the next step and ends with the same weights."""
    batch = stream.batch

    def fail(self, step):
        if self.builder.split == "train" and step == killed_at:
            raise RuntimeError("killed")
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(stream, "batch", fail)
        with pytest.raises(RuntimeError, match="killed"):
            run(growing_config(tmp_path, init))
    assert not (tmp_path / "micro" / "base").exists()
    run(growing_config(tmp_path, init, ckpt="auto"))
    actual, expected = (load_file(path / "base" / "model.safetensors") for path in (tmp_path / "micro", straight_run))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def test_the_final_stage_begins_with_a_rate_of_its_own(straight_run):
    """It has the joint stage's weights, and neither its optimizer nor its place in the schedule."""
    joint, final = (torch.load(straight_run / f"{name}.ckpt", weights_only=True) for name in ("joint", "final"))
    assert final["global_step"] == 2 and joint["global_step"] == 4
    assert final["lr_schedulers"][0]["base_lrs"][0] == FinalStageConfig().lr != JointStageConfig().lr
    assert final["state_dict"].keys() == joint["state_dict"].keys()
