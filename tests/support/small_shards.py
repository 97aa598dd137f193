"""Shards and a processor small enough for tests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gp.data.manifest import ShardEntry, sha256_of, update_manifest

WIDTH, HEIGHT = 56, 28
TURNS = ("<|im_start|>", "<|im_end|>")
SPECIAL = (*TURNS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<pad>")
WORDS = ("system", "user", "assistant", "what", "is", "here", "?", "red", "blue", "big", "[UNK]", *"0123456789")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def image_bytes(width: int = WIDTH, height: int = HEIGHT, kind: str = "JPEG", color=(200, 30, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), color).save(buffer, kind)
    return buffer.getvalue()


def fields(**changes) -> dict:
    """The JSON of a good sample."""
    given = {
        "question": "what is here ?",
        "answer": "red",
        "boxes_xyxy_px": [[0, 0, 27, 27]],
        "width": WIDTH,
        "height": HEIGHT,
        "dataset": "small",
        "split": "train",
        "source_id": "s0",
    }
    return {**given, **changes}


def write_tar(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def write_shards(folder: Path, sizes: list[int], bad: set[int] = frozenset()) -> list[str]:
    """Shards `s0.tar`, `s1.tar`, ... of so many samples; sample i of the whole asks "what is here ? i".

    The images of the samples in `bad` do not open.
    """
    shards, number = [], 0
    for shard, size in enumerate(sizes):
        files = {}
        for _ in range(size):
            image = b"no image" if number in bad else image_bytes()
            files[f"{number:04d}.jpg"] = image
            files[f"{number:04d}.json"] = json.dumps(fields(question=f"what is here ? {number}")).encode()
            number += 1
        shards.append(write_tar(folder / f"s{shard}.tar", files))
    return shards


def add_manifest(shards: list[str], counts: list[int], set_name: str = "small") -> None:
    """Writes the manifest of shards that lie in one folder, as their builder would."""
    paths = [Path(shard) for shard in shards]
    entries = {
        path.name: ShardEntry(set_name, count, count, path.stat().st_size, sha256_of(path))
        for path, count in zip(paths, counts, strict=True)
    }
    update_manifest(paths[0].parent, set_name, entries, {"samples": sum(counts), "complete": True})


def number_of(sample) -> int:
    """Which sample of `write_shards` it is."""
    return int(sample.question.split()[-1])


def small_processor(padding_side: str = "left"):
    """A Qwen2.5-VL processor: the real class and image processor, a tokenizer of a few words."""
    from gp.backbones.processor import Qwen2_5_VLProcessor

    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<|im_end|>", padding_side=padding_side
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[:-1])})
    image_processor = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=8 * 28 * 28)
    return Qwen2_5_VLProcessor(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)
