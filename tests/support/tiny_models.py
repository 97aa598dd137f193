"""Micro models of every family, and prompts for them, with random weights and pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

VOCABULARY = 64
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = 60, 61, 62, 63
TOKEN_IDS = {
    "image_token_id": IMAGE_PAD,
    "video_token_id": VIDEO_PAD,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
PATCH_PX, MERGE, TEMPORAL = 4, 2, 2
LLAVA_SIDE = 5  # visual tokens along an image of the micro LLaVA
WINDOW = 2  # side of an attention window in merged tokens

Grid = tuple[int, int]


def tiny_qwen(
    seed: int = 0,
    layers: int = 4,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    vision_hidden: int = 32,
    vision_depth: int = 4,
    std: float = 0.15,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str = "sdpa",
    patch_px: int = PATCH_PX,
    token_ids: dict[str, int] = TOKEN_IDS,
) -> Qwen2_5_VLForConditionalGeneration:
    """A frozen random model in eval mode; its vision tower has windows of 2 x 2 tokens and full attention in 1 and 3.

    Args:
        seed: of the weights; the global random state is left alone.
        std: of the weights, wide enough for attention that is far from flat.
        patch_px: side of a patch; 14 for the real image processor.
        token_ids: of the image tokens, as the config names them; those of another tokenizer than `tiny_inputs`.
    """
    text = _qwen_text(layers, hidden, heads, kv_heads, std)
    vision = {
        "depth": vision_depth,
        "hidden_size": vision_hidden,
        "intermediate_size": 2 * vision_hidden,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "patch_size": patch_px,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "window_size": WINDOW * patch_px * MERGE,
        "fullatt_block_indexes": [1, 3],
        "initializer_range": std,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        initializer_range=std,
        **token_ids,
    )
    config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    return model.to(dtype).requires_grad_(False).eval()


def tiny_inputs(prompts: Sequence[tuple[Sequence[Grid], int]], seed: int = 0) -> dict[str, Tensor]:
    """A ragged, left-padded batch as the processor would return it.

    Args:
        prompts: for each row the grids (height, width in merged tokens) of its images, and its number of text tokens,
            of which the first third stands before the images.
        seed: of pixels and text.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` [B, S]; `pixel_values`, `image_grid_thw` if there are images.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = [_prompt_ids(grids, length, generator) for grids, length in prompts]
    longest = max(map(len, rows))
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        input_ids[row, longest - len(ids) :] = ids
        mask[row, longest - len(ids) :] = 1
    out = {"input_ids": input_ids, "attention_mask": mask, "mm_token_type_ids": (input_ids == IMAGE_PAD).long()}
    grids = [grid for image_grids, _ in prompts for grid in image_grids]
    if grids:
        num_patches = sum(h * w for h, w in grids) * MERGE**2
        size = 3 * TEMPORAL * PATCH_PX**2
        out["pixel_values"] = torch.randn(num_patches, size, generator=generator)
        out["image_grid_thw"] = torch.tensor([[1, MERGE * h, MERGE * w] for h, w in grids])
    return out


def tiny_answers(lengths: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random answers, right padded: ids [B, A] int64 and mask [B, A] bool."""
    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(1, VISION_START, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return ids * mask, mask


def random_masks(grids: Sequence[Grid], seed: int = 0) -> list[Tensor]:
    """One bool [h, w] an image with a random box set."""
    generator = torch.Generator().manual_seed(seed + 2)
    masks = []
    for height, width in grids:
        top = int(torch.randint(0, height, (), generator=generator))
        left = int(torch.randint(0, width, (), generator=generator))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[top : top + 2, left : left + 2] = True
        masks.append(mask)
    return masks


def _prompt_ids(grids: Sequence[Grid], num_text: int, generator: torch.Generator) -> Tensor:
    text = torch.randint(1, VISION_START, (num_text,), generator=generator)
    images = [torch.tensor([VISION_START, *[IMAGE_PAD] * (h * w), VISION_END]) for h, w in grids]
    head = num_text // 3
    return torch.cat([text[:head], *images, text[head:]])


def _qwen_text(layers: int, hidden: int, heads: int, kv_heads: int, std: float) -> dict[str, Any]:
    """The decoder's part of a config."""
    section = _mrope_section(hidden // heads)
    return {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section},
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
        "initializer_range": std,
        "tie_word_embeddings": False,
    }


def _mrope_section(head_dim: int) -> list[int]:
    """Rotary pairs of the time, height and width axes; they add up to head_dim / 2."""
    spatial = head_dim * 3 // 16
    return [head_dim // 2 - 2 * spatial, spatial, spatial]


def tiny_qwen3(
    seed: int = 0,
    layers: int = 4,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    vision_hidden: int = 32,
    vision_depth: int = 4,
    std: float = 0.15,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str = "sdpa",
    patch_px: int = PATCH_PX,
    token_ids: dict[str, int] = TOKEN_IDS,
) -> Qwen3VLForConditionalGeneration:
    """As `tiny_qwen`: a frozen random Qwen3-VL; vision blocks 0 and 2 go to the first two decoder layers."""
    text = {**_qwen_text(layers, hidden, heads, kv_heads, std), "head_dim": hidden // heads}
    vision = {
        "depth": vision_depth,
        "hidden_size": vision_hidden,
        "intermediate_size": 2 * vision_hidden,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "patch_size": patch_px,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 2],
        "initializer_range": std,
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **token_ids)
    config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
        for name, weight in model.named_parameters():  # norms that do something
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model.to(dtype).requires_grad_(False).eval()


def tiny_llava(
    seed: int = 0,
    layers: int = 4,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    vision_hidden: int = 32,
    vision_depth: int = 4,
    std: float = 0.15,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str = "sdpa",
    vocabulary: int = VOCABULARY,
    image_token_id: int = IMAGE_PAD,
) -> LlavaForConditionalGeneration:
    """As `tiny_qwen`: a frozen random LLaVA whose images have `LLAVA_SIDE` x `LLAVA_SIDE` visual tokens."""
    text = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        initializer_range=std,
    )
    vision = CLIPVisionConfig(
        hidden_size=vision_hidden,
        intermediate_size=2 * vision_hidden,
        num_hidden_layers=vision_depth,
        num_attention_heads=2,
        image_size=LLAVA_SIDE * PATCH_PX,
        patch_size=PATCH_PX,
        initializer_range=std,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image_token_id, image_seq_length=LLAVA_SIDE**2
    )
    config.pad_token_id = 0
    config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    return model.to(dtype).requires_grad_(False).eval()


def tiny_llava_inputs(prompts: Sequence[tuple[Sequence[Grid], int]], seed: int = 0) -> dict[str, Tensor]:
    """As `tiny_inputs`; all grids must be `LLAVA_SIDE` square."""
    like_qwen = tiny_inputs(prompts, seed)
    out = {key: like_qwen[key] for key in ("input_ids", "attention_mask")}
    num_images = sum(len(grids) for grids, _ in prompts)
    if num_images:
        generator = torch.Generator().manual_seed(seed + 3)
        side = LLAVA_SIDE * PATCH_PX
        out["pixel_values"] = torch.randn(num_images, 3, side, side, generator=generator)
    return out


@dataclass(frozen=True)
class Family:
    """An LVLM family in the engine's tests.

    Args:
        make: builds a micro model; `seed`, sizes, `dtype`, `attn_implementation`.
        inputs: builds a ragged left-padded batch.
        grid: the only grid that its images can have; None: any.
    """

    make: Callable[..., PreTrainedModel]
    inputs: Callable[..., dict[str, Tensor]]
    grid: Grid | None = None

    def fit(self, prompts: Sequence[tuple[Sequence[Grid], int]]) -> list[tuple[list[Grid], int]]:
        """The prompts with grids that this family can have."""
        return [([self.grid or grid for grid in grids], length) for grids, length in prompts]


FAMILIES = {
    "qwen2_5_vl": Family(tiny_qwen, tiny_inputs),
    "qwen3_vl": Family(tiny_qwen3, tiny_inputs),
    "llava": Family(tiny_llava, tiny_llava_inputs, (LLAVA_SIDE, LLAVA_SIDE)),
}
