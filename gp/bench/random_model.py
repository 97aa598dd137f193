"""A random model of the Qwen2.5-VL architecture in any size, with a glimpse and a batch, for measuring."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from gp.backbones import backbone_of
from gp.config import GlimpseConfig, VIPConfig
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner

VOCABULARY = 2048
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = 2044, 2045, 2046, 2047
HEAD_SIZE = 64
PATCH_PX, MERGE = 14, 2


@dataclass(frozen=True)
class Size:
    """What is measured. `visual`: visual tokens of each image, a square number; `text`: other tokens of a prompt."""

    layers: int = 12
    hidden: int = 512
    visual: int = 400
    text: int = 40
    answer: int = 8
    batch: int = 2
    vision_layers: int = 4
    vision_hidden: int = 256

    def __post_init__(self) -> None:
        if self.hidden % (2 * HEAD_SIZE):
            raise ValueError(f"--hidden must be a multiple of {2 * HEAD_SIZE}, got {self.hidden}")
        if round(self.visual**0.5) ** 2 != self.visual:
            raise ValueError(f"--visual must be a square number (the image is square), got {self.visual}")
        if self.layers < 2 or self.vision_layers < 2:
            raise ValueError("--layers and --vision-layers must be at least 2")
        if min(self.text, self.answer, self.batch) < 1:
            raise ValueError("--text, --answer and --batch must be at least 1")


def random_model(size: Size, device: str = "cpu", dtype: torch.dtype = torch.float32) -> GlimpseModel:
    """Random weights from a fixed seed; pruning after two thirds of the layers, as in the published configs."""
    torch.manual_seed(0)
    base = Qwen2_5_VLForConditionalGeneration._from_config(_config(size), dtype=dtype).to(device)
    backbone = backbone_of(base)
    taps = [size.vision_layers - 1, size.vision_layers // 2 - 1]
    glimpse = GlimpseConfig(prune_layer=max(1, size.layers * 2 // 3 - 1))
    return GlimpseModel(base, GlimpsePruner.build(backbone, glimpse, VIPConfig(taps=taps)).to(device))


def random_batch(size: Size, device: str = "cpu") -> dict[str, Tensor | dict[str, Tensor] | list[Tensor]]:
    """`inputs` as the processor makes them, `answer_ids`, `answer_mask`, `evidence_masks` (5 % of the tokens)."""
    generator = torch.Generator().manual_seed(1)
    side = round(size.visual**0.5)
    text = torch.randint(1, VISION_START, (size.batch, size.text), generator=generator)
    row = [VISION_START, *[IMAGE_PAD] * size.visual, VISION_END]
    input_ids = torch.cat([torch.tensor(row).expand(size.batch, -1), text], dim=1)
    num_patches = size.batch * size.visual * MERGE**2
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": torch.randn(num_patches, 3 * 2 * PATCH_PX**2, generator=generator),
        "image_grid_thw": torch.tensor([[1, MERGE * side, MERGE * side]] * size.batch),
    }
    answer_ids = torch.randint(1, VISION_START, (size.batch, size.answer), generator=generator)
    evidence = torch.zeros(side, side, dtype=torch.bool)
    evidence[: max(1, side // 5), : max(1, side // 4)] = True
    return {
        "inputs": {k: v.to(device) for k, v in inputs.items()},
        "answer_ids": answer_ids.to(device),
        "answer_mask": torch.ones_like(answer_ids, dtype=torch.bool).to(device),
        "evidence_masks": [evidence.to(device)] * size.batch,
    }


def _config(size: Size) -> Qwen2_5_VLConfig:
    text = {
        "hidden_size": size.hidden,
        "intermediate_size": 3 * size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.hidden // HEAD_SIZE,
        "num_key_value_heads": size.hidden // HEAD_SIZE // 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "intermediate_size": 2 * size.vision_hidden,
        "num_heads": size.vision_hidden // HEAD_SIZE,
        "out_hidden_size": size.hidden,
        "patch_size": PATCH_PX,
        "spatial_merge_size": MERGE,
        "fullatt_block_indexes": [size.vision_layers - 1],
    }
    tokens = {"image_token_id": IMAGE_PAD, "video_token_id": VIDEO_PAD}
    starts = {"vision_start_token_id": VISION_START, "vision_end_token_id": VISION_END}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens, **starts)
