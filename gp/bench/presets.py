"""Random models of the Qwen2.5-VL architecture in four sizes, each with a glimpse and a batch, for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from gp.backbones import backbone_of
from gp.backbones.random_base import make_config, random_base
from gp.config import GlimpseConfig, VIPConfig
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner

PATCH_PX, MERGE, TEMPORAL = 14, 2, 2
WORDS = 1000  # text is drawn from ids 1 .. WORDS
IMAGE_TOKENS = ("vision_start", "vision_end", "image", "video")
TEXT_AROUND_IMAGE = 2  # vision start and end


@dataclass(frozen=True)
class Preset:
    """Sizes of a model, and what is asked of it.

    Args:
        layers, hidden, inner, heads, kv_heads: of the decoder.
        vocabulary: its size; the image tokens are its last ids.
        tied: the head shares the embedding's weights.
        vision_layers, vision_hidden, vision_inner, vision_heads: of the vision tower.
        full_attention: its blocks without windows; the others attend in windows of 4 x 4 visual tokens.
        prune_layer: the last decoder layer that sees all tokens.
        twig: copies of the layers behind it that the glimpse is read in.
        taps: vision layers that the VIP reads.
        vip_hidden, vip_cond: its widths.
        dtype: of the frozen model.
        visual: visual tokens of each image.
        text: other tokens of a prompt.
        answer: answer tokens in training.
        batch: prompts.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    vision_layers: int
    vision_hidden: int
    vision_inner: int
    vision_heads: int
    full_attention: tuple[int, ...]
    prune_layer: int
    taps: tuple[int, ...]
    vip_hidden: int = 256
    vip_cond: int = 512
    dtype: str = "float32"
    visual: int = 1024
    text: int = 40
    answer: int = 8
    batch: int = 1
    twig: int = 0

    @property
    def config(self) -> PretrainedConfig:
        head_size = self.hidden // self.heads
        spatial = head_size * 3 // 16
        text = {
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [head_size // 2 - 2 * spatial, spatial, spatial],
            },
            "bos_token_id": None,
            "eos_token_id": None,
        }
        vision = {
            "depth": self.vision_layers,
            "hidden_size": self.vision_hidden,
            "intermediate_size": self.vision_inner,
            "num_heads": self.vision_heads,
            "out_hidden_size": self.hidden,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL,
            "fullatt_block_indexes": list(self.full_attention),
        }
        tokens = {f"{name}_token_id": self.token_id(name) for name in IMAGE_TOKENS}
        sizes = {"text_config": text, "vision_config": vision, "tie_word_embeddings": self.tied}
        return make_config("qwen2_5_vl", **sizes, **tokens)

    @property
    def glimpse(self) -> GlimpseConfig:
        return GlimpseConfig(prune_layer=self.prune_layer, twig=self.twig)

    @property
    def vip(self) -> VIPConfig:
        return VIPConfig(taps=list(self.taps), hidden_size=self.vip_hidden, cond_size=self.vip_cond)

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of each image in visual tokens, as square as the number allows."""
        return near_square(self.visual)

    def token_id(self, name: str) -> int:
        return self.vocabulary - len(IMAGE_TOKENS) + IMAGE_TOKENS.index(name)


_QWEN_VISION: dict[str, Any] = {
    "vision_layers": 32,
    "vision_hidden": 1280,
    "vision_inner": 3420,
    "vision_heads": 16,
    "full_attention": (7, 15, 23, 31),
    "taps": (31, 23, 15, 7),
    "dtype": "bfloat16",
    "visual": 4096,
}

PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        layers=3, hidden=64, inner=128, heads=2, kv_heads=1, vocabulary=1100, tied=False, prune_layer=1,
        vision_layers=2, vision_hidden=32, vision_inner=64, vision_heads=2, full_attention=(1,), taps=(1, 0),
        vip_hidden=16, vip_cond=16, visual=16, text=6, answer=2,
    ),
    "mid": Preset(
        layers=12, hidden=512, inner=2688, heads=8, kv_heads=4, vocabulary=16384, tied=False, prune_layer=7,
        vision_layers=8, vision_hidden=256, vision_inner=684, vision_heads=4, full_attention=(3, 7), taps=(7, 5, 3, 1),
        vip_hidden=64, vip_cond=128,
    ),
    "qwen3b": Preset(
        layers=36, hidden=2048, inner=11008, heads=16, kv_heads=2, vocabulary=151936, tied=True, prune_layer=23,
        **_QWEN_VISION,
    ),
    "qwen7b": Preset(
        layers=28, hidden=3584, inner=18944, heads=28, kv_heads=4, vocabulary=152064, tied=False, prune_layer=18,
        **_QWEN_VISION,
    ),
    "qwen32b": Preset(
        layers=64, hidden=5120, inner=27648, heads=40, kv_heads=8, vocabulary=152064, tied=False, prune_layer=41,
        **{**_QWEN_VISION, "vision_inner": 3456},
    ),
    "qwen72b": Preset(
        layers=80, hidden=8192, inner=29568, heads=64, kv_heads=8, vocabulary=152064, tied=False, prune_layer=51,
        **{**_QWEN_VISION, "vision_inner": 3456},
    ),
}  # fmt: skip


def random_model(
    preset: Preset, device: str = "cpu", dtype: torch.dtype = torch.float32, attn: str = "sdpa"
) -> GlimpseModel:
    """Random weights from a fixed seed, made on the device ("meta": sizes only); the trained parts are float32.

    Raises:
        ImportError, ValueError: an attention kernel that is not there, from transformers.
    """
    torch.manual_seed(0)
    with torch.device(device):
        base = random_base(preset.config, dtype, attn)
        pruner = GlimpsePruner.build(backbone_of(base), preset.glimpse, preset.vip)
    return GlimpseModel(base.requires_grad_(False), pruner)


def random_inputs(preset: Preset, device: str = "cpu", grid: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """A batch of prompts as the processor makes them, one image each.

    Args:
        grid: (height, width) of the images in visual tokens; None: the preset's.
    """
    generator = torch.Generator().manual_seed(1)
    height, width = grid or preset.grid
    start, end, image = (preset.token_id(name) for name in ("vision_start", "vision_end", "image"))
    row = torch.tensor([start, *[image] * (height * width), end])
    words = torch.randint(1, WORDS, (preset.batch, preset.text - TEXT_AROUND_IMAGE), generator=generator)
    input_ids = torch.cat([row.expand(preset.batch, -1), words], dim=1)
    num_patches = preset.batch * height * width * MERGE**2
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == image).int(),  # stock counts positions along one axis without it
        "pixel_values": torch.randn(num_patches, 3 * TEMPORAL * PATCH_PX**2, generator=generator),
        "image_grid_thw": torch.tensor([[1, MERGE * height, MERGE * width]] * preset.batch),
    }
    return {key: value.to(device) for key, value in inputs.items()}


def random_answers(preset: Preset, device: str = "cpu") -> tuple[Tensor, Tensor, list[Tensor]]:
    """Answer ids and mask [B, A], and one evidence mask [h, w] an image (5 % of its tokens)."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, WORDS, (preset.batch, preset.answer), generator=generator).to(device)
    height, width = preset.grid
    evidence = torch.zeros(height, width, dtype=torch.bool, device=device)
    evidence[: max(1, height // 5), : max(1, width // 4)] = True
    return ids, torch.ones_like(ids, dtype=torch.bool), [evidence] * preset.batch


def near_square(number: int) -> tuple[int, int]:
    """The two factors of a number that are nearest to each other, the smaller one first."""
    side = int(number**0.5)
    while number % side:
        side -= 1
    return side, number // side


def spread_counts(mean: int, total: int, rows: int) -> Sequence[int]:
    """`rows` different numbers around `mean`, evenly from about 0 to 2 x mean (at least 1, at most `total`)."""
    if rows == 1:
        return (mean,)
    wanted = [round(2 * mean * (2 * row + 1) / (2 * rows)) for row in range(rows)]
    return tuple(min(total, max(1, count)) for count in wanted)
