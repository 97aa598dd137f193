"""A finished run small enough for tests: base, shards, config and checkpoint on disk, all random."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from gp.backbones.processor import load_processor
from gp.config import load_config
from gp.data.batch import question_messages
from gp.data.sample import Sample, parse_record
from gp.data.shards import read_records, shard_names
from gp.formats.facts import base_shape
from gp.formats.glimpse_folder import save_glimpse
from tests.support.glimpses import micro_configs, micro_glimpse
from tests.support.small_shards import SPECIAL, WORDS, fields, small_processor, write_tar

NEW_TOKENS = 4
SHARD_SIZES = (5, 4, 3)
NUM_SAMPLES = sum(SHARD_SIZES)
BATCH = 4


@dataclass
class MicroRun:
    """Paths: of the base, of the run's folder, and the names of the test shards."""

    base: Path
    run: Path
    shards: list[str]

    @property
    def ckpt(self) -> Path:
        return self.run / "last.ckpt"

    def samples(self) -> list[Sample]:
        named = zip(self.shards, shard_names(self.shards), strict=True)
        return [parse_record(record) for shard, name in named for record in read_records(shard, name)]


def write_run(root: Path) -> MicroRun:
    """Every second answer is what the un-pruned base says, so that half of its answers are right."""
    base_dir = root / "base"
    base = micro_base()
    base.save_pretrained(base_dir)
    small_processor().save_pretrained(base_dir)
    made = MicroRun(base_dir, root / "runs" / "micro", [])
    made.shards = write_shards(root, ["red"] * NUM_SAMPLES)
    said = stock_answers(made)
    made.shards = write_shards(root, [text if i % 2 else "no answer" for i, text in enumerate(said)])
    write_checkpoint(made, base)
    return made


def micro_base(hidden: int = 64, std: float = 0.2) -> Qwen2_5_VLForConditionalGeneration:
    """4 layers, 4 vision blocks, 28 px a visual token, the vocabulary of `small_processor`."""
    ids = {token: index for index, token in enumerate(SPECIAL)}
    text = {
        "hidden_size": hidden,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(SPECIAL) + len(WORDS),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<pad>"],
        "initializer_range": std,
        "tie_word_embeddings": False,
    }
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1, 3],
        "initializer_range": std,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        initializer_range=std,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Qwen2_5_VLForConditionalGeneration(config).requires_grad_(False).eval()


def write_shards(root: Path, answers: list[str]) -> list[str]:
    """PNGs of noise in several sizes, one box each."""
    generator = torch.Generator().manual_seed(0)
    shards, number = [], 0
    for shard, size in enumerate(SHARD_SIZES):
        files = {}
        for _ in range(size):
            width, height = 28 * (2 + number % 3), 28 * (2 + number % 2)
            noise = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
            buffer = io.BytesIO()
            Image.fromarray(noise.numpy()).save(buffer, "PNG")
            box = [0, 0, 20, 20] if number % 2 else [30, 0, width - 1, 50]
            sample = fields(
                question=f"what is here ? {number}",
                answer=answers[number],
                boxes_xyxy_px=[box],
                width=width,
                height=height,
                split="test",
            )
            files[f"{number:04d}.png"] = buffer.getvalue()
            files[f"{number:04d}.json"] = json.dumps(sample).encode()
            number += 1
        shards.append(write_tar(root / f"test-{shard}.tar", files))
    return shards


def stock_answers(made: MicroRun) -> list[str]:
    """What transformers alone answers, one sample at a time."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(made.base).eval()
    processor = load_processor(made.base)
    answers = []
    for sample in made.samples():
        inputs = processor.apply_chat_template(
            question_messages(sample), tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        text = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        answers.append(text.strip())
    return answers


def write_checkpoint(made: MicroRun, base: Qwen2_5_VLForConditionalGeneration) -> None:
    """`config.yaml`, `last.ckpt` and `glimpse/` as a training run leaves them."""
    model = micro_glimpse(base, prune_layer=1)
    glimpse, vip = micro_configs(prune_layer=1)
    settings = {
        "name": "micro",
        "runs_dir": str(made.run.parent),
        "model": {"base": str(made.base)},
        "glimpse": asdict(glimpse),
        "vip": asdict(vip),
        "data": {
            "root": str(Path(made.shards[0]).parent),
            "train": ["test-0.tar"],
            "val": ["test-0.tar"],
            "test": {"test": ["test-{0..2}.tar"], "part": ["test-0.tar"]},
            "eval_batch_size": BATCH,
            "num_workers": 0,
        },
        "optim": {"max_steps": 1},
        "trainer": {"accelerator": "cpu"},
        "eval": {"max_new_tokens": NEW_TOKENS, "overlays": 2},
    }
    made.run.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(settings), made.run / "config.yaml")
    config = load_config(made.run / "config.yaml")
    OmegaConf.save(OmegaConf.create(asdict(config)), made.run / "config.yaml")
    state = {f"model.glimpse.{key}": value for key, value in model.glimpse.state_dict().items()}
    info = {"base": {"name": str(made.base), **base_shape(model.backbone)}, "parts": model.glimpse.meaning()}
    torch.save({"state_dict": state, "gp": info, "global_step": 1}, made.ckpt)
    save_glimpse(made.run / "glimpse", model.glimpse, model.backbone, model.options)
