"""Pretraining of the embedded model on a micro size: same numbers as stock transformers, seeded, resumable."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from gp.backbones.processor import load_processor
from gp.config.pretrain import JointStageConfig, PretrainConfig, PretrainModelConfig
from gp.embedded.making.model import build_model
from gp.embedded.making.pretrain import run
from gp.embedded.making.scene_stream import SceneStream
from gp.embedded.making.scenes import SceneBuilder
from tests.support.micro_making import MICRO, micro_config


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(micro_config(folder))
    return folder / "micro"


def test_run_trains_and_writes_everything(straight_run):
    assert {"base", "last.ckpt", "vision.ckpt", "config.yaml", "run.json", "pretrain.log", "tb"} <= {
        path.name for path in straight_run.iterdir()
    }
    lines = (straight_run / "pretrain.log").read_text().splitlines()
    losses = [float(line.split("train/loss=")[1].split()[0]) for line in lines if "train/loss=" in line]
    assert len(losses) == 6
    assert torch.load(straight_run / "last.ckpt", weights_only=True)["global_step"] == 6
    assert all(math.isfinite(loss) for loss in losses)
    stored = load_file(straight_run / "base" / "model.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in stored.values())
    initial = build_model(micro_config("unused")).state_dict()
    trained = Qwen2_5_VLForConditionalGeneration.from_pretrained(straight_run / "base").state_dict()
    moved = [name for name, tensor in trained.items() if not torch.equal(tensor, initial[name].half().float())]
    assert len(moved) > 0.9 * len(trained)


def test_folder_loads_as_stock_transformers(straight_run):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(straight_run / "base")
    assert model.dtype == torch.float32
    processor = load_processor(straight_run / "base")
    scene = SceneBuilder("val").build(0, "color")
    message = {"role": "user", "content": [{"type": "image", "image": scene.image}, {"type": "text", "text": "read"}]}
    inputs = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert inputs["pixel_values"].shape == (256, 1176)
    assert model.generate(**inputs, max_new_tokens=2).shape[1] <= inputs["input_ids"].shape[1] + 2


def test_same_seed_same_weights(straight_run, tmp_path):
    run(micro_config(tmp_path))
    assert_same_weights(tmp_path / "micro", straight_run)


@pytest.mark.parametrize("killed_at", [2, 4])
def test_resume_after_a_kill(straight_run, tmp_path, monkeypatch, killed_at):
    """Killed in either stage, the run goes on with the next step and ends with the same weights."""
    batch = SceneStream.batch

    def fail(self, step):
        # The loader fetches one batch ahead, so the step before this one has been trained and saved.
        if self.builder.split == "train" and step == killed_at + 1:
            raise RuntimeError("killed")
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(SceneStream, "batch", fail)
        with pytest.raises(RuntimeError, match="killed"):
            run(micro_config(tmp_path, checkpoint_every_steps=1))
    assert not (tmp_path / "micro" / "base").exists()
    run(micro_config(tmp_path, ckpt="last"))
    assert_same_weights(tmp_path / "micro", straight_run)


def test_stage_two_from_the_end_of_stage_one(straight_run, tmp_path):
    run(micro_config(tmp_path, ckpt=str(straight_run / "vision.ckpt")))
    assert_same_weights(tmp_path / "micro", straight_run)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ckpt=last.*last.ckpt"):
        run(micro_config(tmp_path, ckpt="last"))


def test_an_earlier_run_is_not_overwritten(straight_run):
    before = (straight_run / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"last\.ckpt.*ckpt=auto"):
        run(micro_config(straight_run.parent))
    assert (straight_run / "last.ckpt").read_bytes() == before


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match=r"joint_stage\.evidence_layer .*0\.\.2"):
        PretrainConfig(model=MICRO, joint_stage=JointStageConfig(evidence_layer=3))
    with pytest.raises(ValueError, match=r"model\.hidden_size .*multiple"):
        PretrainConfig(model=PretrainModelConfig(hidden_size=100))


def assert_same_weights(run_dir, reference_dir):
    actual = load_file(run_dir / "base" / "model.safetensors")
    expected = load_file(reference_dir / "base" / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
