"""The vision tower in training: a batch of equal-sized images at once, and dense heads for every visual token.

transformers' tower attends image by image and window by window in a Python loop. Images of one size share their
window layout, so here the same modules run on a batch axis instead: same numbers (tested), twice the speed on CPU.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from gp.embedded.making.scene_stream import COLOR_CLASSES, IGNORE, SHAPE_CLASSES


def patchify(images: torch.Tensor, patch_size: int = 14, merge_size: int = 2) -> torch.Tensor:
    """Normalised patches in the order of Qwen's image processor, without its doubled time axis.

    Args:
        images: uint8 [B, 3, H, W], sides multiples of patch_size * merge_size.

    Returns:
        float32 [B, N, 3 * patch_size**2], the merge_size**2 patches of one visual token next to each other.
    """
    batch, channels, height, width = images.shape
    mean = torch.tensor(OPENAI_CLIP_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(OPENAI_CLIP_STD, device=images.device).view(1, 3, 1, 1)
    pixels = (images.float() / 255.0 - mean) / std
    rows, columns = height // (patch_size * merge_size), width // (patch_size * merge_size)
    # [B, C, rows, merge, patch, columns, merge, patch] -> [B, rows, columns, merge, merge, C, patch, patch]
    pixels = pixels.view(batch, channels, rows, merge_size, patch_size, columns, merge_size, patch_size)
    pixels = pixels.permute(0, 2, 5, 3, 6, 1, 4, 7)
    return pixels.reshape(batch, rows * columns * merge_size**2, channels * patch_size**2)


def encode_images(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Run a Qwen2.5-VL vision tower on images of one size.

    Args:
        visual: `Qwen2_5_VisionTransformerPretrainedModel`.
        images: uint8 [B, 3, H, W]; every attention window must be full (sides multiples of the window size).

    Returns:
        Visual tokens [B, V, out_hidden_size] in raster order.

    Raises:
        ValueError: the image is not made of whole windows.
    """
    config, merge = visual.config, visual.spatial_merge_size
    batch, _, height, width = images.shape
    if height % config.window_size or width % config.window_size:
        raise ValueError(f"images must be made of whole windows of {config.window_size} px, got {width} x {height} px")
    token_px = config.patch_size * merge
    index = window_order(height // token_px, width // token_px, config.window_size // token_px)
    # Both frames of a "video" of one image are equal: sum the kernel over time instead of doubling the pixels.
    kernel = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)
    x = F.linear(patchify(images, config.patch_size, merge), kernel)
    x = x.view(batch, len(index), merge**2, -1)[:, index].flatten(1, 2)
    cos, sin = rotary_tables(height // token_px, width // token_px, merge, config.hidden_size // config.num_heads)
    cos, sin = (t.view(len(index), merge**2, -1)[index].flatten(0, 1) for t in (cos, sin))
    window = (config.window_size // config.patch_size) ** 2
    for number, block in enumerate(visual.blocks):
        span = x.shape[1] if number in visual.fullatt_block_indexes else window
        x = x + _attend(block.attn, block.norm1(x), cos, sin, span)
        x = x + block.mlp(block.norm2(x))
    merged = visual.merger(x.reshape(-1, x.shape[-1])).view(batch, len(index), -1)
    return merged[:, torch.argsort(index)]


def window_order(rows: int, columns: int, side: int) -> torch.Tensor:
    """Raster numbers of the visual tokens, window by window (side x side tokens), int64 [rows * columns]."""
    grid = torch.arange(rows * columns).view(rows // side, side, columns // side, side)
    return grid.transpose(1, 2).reshape(-1)


def rotary_tables(rows: int, columns: int, merge: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the patches' rotary angles, float32 [N, head_dim] each, in the order of `patchify`."""
    frequencies = 10000.0 ** -(torch.arange(0, head_dim // 2, 2) / (head_dim // 2))
    axes = torch.meshgrid(torch.arange(rows * merge), torch.arange(columns * merge), indexing="ij")
    blocks = [axis.view(rows, merge, columns, merge).transpose(1, 2).reshape(-1, 1) for axis in axes]
    angles = torch.cat([position * frequencies for position in blocks], dim=1)
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def _attend(attention: nn.Module, x: torch.Tensor, cos, sin, span: int) -> torch.Tensor:
    """Self-attention within consecutive spans of `span` patches. x: [B, N, C]; cos, sin: [N, head_dim]."""
    batch, length, width = x.shape
    qkv = attention.qkv(x).view(batch, length, 3, attention.num_heads, -1)
    q, k, v = qkv.unbind(2)
    cos, sin = cos[:, None], sin[:, None]
    q, k = (t * cos + _rotate_half(t) * sin for t in (q, k))
    # [B, N, heads, d] -> [B * spans, heads, span, d]
    q, k, v = (t.reshape(-1, span, attention.num_heads, attention.head_dim).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    return attention.proj(out.transpose(1, 2).reshape(batch, length, width))


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class DenseHeads(nn.Module):
    """Linear heads that name colour, shape, left and right digit of the card under every visual token."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.sizes = [len(COLOR_CLASSES), len(SHAPE_CLASSES), 10, 10]
        self.linear = nn.Linear(hidden_size, sum(self.sizes))

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy summed over the four heads, and their accuracies.

        Args:
            tokens: [B, V, D]. targets: int64 [B, 4, V], -100 where ignored.

        Returns:
            Loss (scalar) and accuracies float32 [4] (nan where a head has no target).
        """
        losses, accuracies = [], []
        for index, logits in enumerate(self.linear(tokens).split(self.sizes, dim=-1)):
            target = targets[:, index]
            losses.append(F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE))
            known = target != IGNORE
            accuracies.append((logits.argmax(-1) == target)[known].float().mean())
        return torch.stack(losses).sum(), torch.stack(accuracies)
