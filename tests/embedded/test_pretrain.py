"""Pretraining of the embedded model on a micro size: same numbers as stock transformers, seeded, resumable."""

import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from gp.backbones.processor import load_processor
from gp.config.pretrain import JointStageConfig, PretrainConfig, PretrainModelConfig, VisionStageConfig
from gp.embedded.making.joint_stage import image_prefix_ids, joint_forward
from gp.embedded.making.model import build_model, build_processor, build_tokenizer
from gp.embedded.making.optim import MuonAdamW
from gp.embedded.making.pretrain import run
from gp.embedded.making.scene_stream import IGNORE, SceneStream, dense_targets
from gp.embedded.making.vision_stage import encode_images
from gp.embedded.scenes import SceneBuilder

MICRO = PretrainModelConfig(
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=2,
    num_kv_heads=1,
    vision_hidden_size=32,
    vision_intermediate_size=32,
    vision_depth=2,
    vision_num_heads=2,
)


def micro_config(folder, **changes):
    settings = {
        "name": "micro",
        "runs_dir": str(folder),
        "model": MICRO,
        "vision_stage": VisionStageConfig(steps=3, batch_size=2),
        "joint_stage": JointStageConfig(steps=3, batch_size=2, questions_per_scene=3, evidence_layer=1),
        "num_workers": 0,
        "warmup_steps": 2,
        "log_every_steps": 1,
        "checkpoint_every_steps": 4,
        "val_scenes": 2,
        "val_every_steps": 6,
    }
    return PretrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(micro_config(folder))
    return folder / "micro"


@pytest.fixture(scope="module")
def joint_case():
    """A random micro model and a batch with questions of unequal lengths."""
    model = build_model(micro_config("unused"))
    stream = SceneStream(SceneBuilder("train", augment=True), build_tokenizer(), range(1), 3, 0, 0.5, 4)
    return model, stream.batch(0)


def test_batched_tower_equals_stock(joint_case):
    model, batch = joint_case
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in batch["images"]]
    inputs = build_processor().image_processor(images, return_tensors="pt")
    with torch.no_grad():
        expected = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        actual = encode_images(model, batch["images"])
    torch.testing.assert_close(actual.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_packed_questions_equal_single_ones(joint_case):
    """Loss and evidence attention of the packed pass are those of stock forward passes, one question at a time."""
    model, batch = joint_case
    tokenizer, layer = build_tokenizer(), 1
    model.set_attn_implementation("eager")
    losses, attention_losses = [], []
    prefix_ids = image_prefix_ids(tokenizer, 64)
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in batch["images"]]
    with torch.no_grad():
        for i, image in enumerate(images):
            pixels = build_processor().image_processor([image], return_tensors="pt")
            for ids, length, evidence in zip(
                batch["text_ids"][i], batch["prompt_lengths"][i], batch["evidence"][i], strict=True
            ):
                input_ids = torch.cat([prefix_ids, ids[ids >= 0]])[None]
                types = (input_ids == model.config.image_token_id).int()
                out = model(input_ids=input_ids, mm_token_type_ids=types, output_attentions=True, **pixels)
                start = len(prefix_ids) + int(length)
                losses.append(F.cross_entropy(out.logits[0, start - 1 : start + 2], input_ids[0, start : start + 3]))
                on_image = out.attentions[layer][0, :, start - 1, 4:68]
                attention_losses.append(-on_image[:, evidence].sum(-1).mean().log())
        model.set_attn_implementation("sdpa")
        packed = joint_forward(model, tokenizer, batch, layer)
    torch.testing.assert_close(packed.answer_loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(packed.evidence_loss, torch.stack(attention_losses).mean(), rtol=1e-5, atol=1e-6)


def test_training_prompt_is_the_processors_prompt(joint_case):
    """What the stage trains on is what `apply_chat_template` gives at inference, position for position."""
    scene = SceneBuilder("val").build(0, "color")
    processor, question = build_processor(), scene.questions[0]
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    expected = processor(images=[scene.image], text=[text])["input_ids"][0]
    stream = SceneStream(SceneBuilder("val"), processor.tokenizer, range(1), 1, 0, 0.0)
    packed = stream._pack_questions([scene])
    prompt = packed["text_ids"][0, 0, : packed["prompt_lengths"][0, 0]]
    assert image_prefix_ids(processor.tokenizer, 64).tolist() + prompt.tolist() == list(expected)


def test_dense_targets_name_the_card_under_a_token():
    scene = SceneBuilder("val").build(5, "color")
    targets = dense_targets(scene.cards).reshape(4, 8, 8)
    for card in scene.cards:
        x1, y1, _, _ = card.box_xyxy_px
        if x1 % 28 == y1 % 28 == 0:  # on the token grid: both tokens are the card's alone
            assert (targets[2, y1 // 28, x1 // 28 : x1 // 28 + 2] == card.digits[0]).all()
            assert (targets[3, y1 // 28, x1 // 28 : x1 // 28 + 2] == card.digits[1]).all()
    assert ((targets[0] == 0) == (targets[1] == 0)).all()
    assert (targets[2:, targets[0] == 0] == IGNORE).all()


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
    with pytest.raises(ValueError, match=r"last\.ckpt .*ckpt=last"):
        run(micro_config(straight_run.parent))
    assert (straight_run / "last.ckpt").read_bytes() == before


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match=r"joint_stage\.evidence_layer .*0\.\.2"):
        PretrainConfig(model=MICRO, joint_stage=JointStageConfig(evidence_layer=3))
    with pytest.raises(ValueError, match=r"model\.hidden_size .*multiple"):
        PretrainConfig(model=PretrainModelConfig(hidden_size=100))


def test_optimizer_shares_its_groups_after_loading():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    optimizer = MuonAdamW(model.named_parameters(), lr=1e-3, weight_decay=0.0)
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    restored = MuonAdamW(model.named_parameters(), lr=1e-3, weight_decay=0.0)
    restored.load_state_dict(optimizer.state_dict())
    for group in restored.param_groups:
        group["lr"] = 0.0
    before = [parameter.clone() for parameter in model.parameters()]
    restored.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def assert_same_weights(run_dir, reference_dir):
    actual = load_file(run_dir / "base" / "model.safetensors")
    expected = load_file(reference_dir / "base" / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
