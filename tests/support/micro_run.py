"""Everything that a real run needs, in a size for tests: a random base with its processor, shards, and a config."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from gp.config import TrainConfig, load_config
from tests.support.small_shards import small_processor, write_tar
from tests.support.tiny_models import tiny_qwen

WIDTH, HEIGHT = 112, 56  # px: 4 x 2 visual tokens
BOXES = ([0, 0, 27, 27], [28, 0, 83, 27], [84, 28, 111, 55])
ANSWERS = ("red", "1 2 3 4", "big blue")  # ragged


def save_base(folder: Path, seed: int = 0, make=tiny_qwen, processor=None, **changes) -> str:
    """Saves a micro base of a Qwen family that fits its processor, with it; returns its path.

    Args:
        make: builds the base.
        processor: None: `small_processor`.
    """
    processor = processor or small_processor()
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>"}
    names["vision_end"] = "<|vision_end|>"
    token_ids = {f"{k}_token_id": processor.tokenizer.convert_tokens_to_ids(v) for k, v in names.items()}
    base = make(seed, patch_px=processor.image_processor.patch_size, token_ids=token_ids, **changes)
    base.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    base.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def write_samples(path: Path, numbers: range) -> str:
    """A shard of noise images with a box and an answer each; returns its path."""
    files: dict[str, bytes] = {}
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        fields = {
            "question": "what is here ?" if number % 2 else "what is big red here ?",
            "answer": ANSWERS[number % len(ANSWERS)],
            "boxes_xyxy_px": [BOXES[number % len(BOXES)]],
            "width": WIDTH,
            "height": HEIGHT,
            "dataset": "micro",
            "split": "train",
            "source_id": str(number),
        }
        files[f"{number:04d}.png"] = buffer.getvalue()
        files[f"{number:04d}.json"] = json.dumps(fields).encode()
    return write_tar(path, files)


def write_config(folder: Path, base: str, *overrides: str) -> TrainConfig:
    """Shards, a YAML file `micro.yaml` and the config that it gives, all below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        write_samples(folder / f"train{shard}.tar", range(8 * shard, 8 * shard + 8))
    write_samples(folder / "val.tar", range(100, 105))
    given = {
        "name": "micro",
        "runs_dir": str(folder / "runs"),
        "model": {"base": base},
        "glimpse": {"prune_layer": 2},
        "vip": {"hidden_size": 16, "cond_size": 16, "num_heads": 2, "taps": [3, 1]},
        "data": {
            "root": str(folder),
            "train": ["train{0..1}.tar"],
            "val": ["val.tar"],
            "test": {"test": ["val.tar"]},
            "batch_size": 2,
            "eval_batch_size": 3,
            "num_workers": 0,
        },
        "optim": {"lr": 1e-2, "max_steps": 4},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "log_every": 1,
            "val_every": 2,
            "save_every": 2,
            "paint_images": 2,
        },
        "eval": {"max_new_tokens": 3},
    }
    path = folder / "micro.yaml"
    path.write_text(yaml.safe_dump(given))
    return load_config(path, overrides)


def plain(config: TrainConfig) -> dict:
    """The settings as they are saved."""
    return asdict(config)
