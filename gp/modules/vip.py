"""The visual importance predictor (VIP): from glimpse attention and vision features to importance logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gp.modules.rms_norm import rms_norm
from gp.types import VisualLayout

NORM_EPS = 1e-6
ROPE_THETA = 10000.0
ATTENTIONS = ("global", "window")


class VisualImportancePredictor(nn.Module):
    """Refines the glimpse attention of each visual token with the vision tower's own features.

    Args:
        num_features: H * number of read layers, glimpse attention values per token.
        vision_hidden_size: C, of the tapped vision layers.
        num_taps: tapped vision layers, one block each, deepest first.
        hidden_size: width of the predictor.
        cond_size: width of the projected vision features.
        num_heads: of its attention.
        attention: `global`: tokens attend within their own image; `window`: within the vision tower's windows.
        window: side of a window in merged tokens; needed for `window`.
        deep_supervision: every block has an output of its own (trained, not used at inference).

    Raises:
        ValueError: an unknown attention, a missing window, or sizes that the heads do not divide.

    Source: GlimpsePrune (arXiv 2508.01548), section 3.2; details that the paper leaves open as in the released code.
    """

    def __init__(
        self,
        num_features: int,
        vision_hidden_size: int,
        num_taps: int,
        hidden_size: int = 256,
        cond_size: int = 512,
        num_heads: int = 4,
        attention: str = "global",
        window: int | None = None,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"vip attention must be one of {ATTENTIONS}, got {attention!r}")
        if attention == "window" and not window:
            raise ValueError("vip attention 'window' needs a vision tower with windows; use 'global'")
        if hidden_size % num_heads or (hidden_size + cond_size) % (4 * num_heads):
            raise ValueError(
                f"vip num_heads {num_heads} must divide hidden_size {hidden_size}, "
                f"and 4 * num_heads must divide hidden_size + cond_size {hidden_size + cond_size}"
            )
        self.window = window if attention == "window" else None
        self.rope_dim = (hidden_size + cond_size) // num_heads
        self.feature_in = nn.Linear(num_features, hidden_size)
        self.cond_in = nn.ModuleList(nn.Linear(vision_hidden_size, cond_size) for _ in range(num_taps))
        self.blocks = nn.ModuleList(VIPBlock(hidden_size, cond_size, num_heads) for _ in range(num_taps))
        first_head = 0 if deep_supervision else num_taps - 1
        self.heads = nn.ModuleDict({str(k): nn.Linear(hidden_size, 1) for k in range(first_head, num_taps)})

    def forward(self, features: Tensor, taps: Sequence[Tensor], layout: VisualLayout) -> list[Tensor]:
        """Scores every visual token of the batch.

        Args:
            features: [N, num_features], glimpse attention, read layer by read layer, head by head.
            taps: one [N, C] per tapped vision layer, raster order.
            layout: the images of the batch.

        Returns:
            One [N] float32 of importance logits per output head; the last decides. At inference only the last.
        """
        dtype = self.feature_in.weight.dtype
        rope = rope_2d(layout.row_col(), self.rope_dim)
        spans = AttentionSpans(layout, self.window)
        hidden = self.feature_in(features.to(dtype))
        logits = []
        for k, (block, cond_in) in enumerate(zip(self.blocks, self.cond_in)):
            hidden = block(hidden, cond_in(taps[k].to(dtype)), rope, spans)
            is_last = k == len(self.blocks) - 1
            if str(k) in self.heads and (self.training or is_last):
                logits.append(self.heads[str(k)](hidden).squeeze(-1).float())
        return logits


class VIPBlock(nn.Module):
    """h += Attn(norm(h); c), then h += GatedMLP(norm(h))."""

    def __init__(self, hidden_size: int, cond_size: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(hidden_size, eps=NORM_EPS)
        self.attn = ConditionedAttention(hidden_size, cond_size, num_heads)
        self.norm2 = nn.RMSNorm(hidden_size, eps=NORM_EPS)
        self.mlp = GatedMLP(hidden_size, 2 * hidden_size)

    def forward(self, hidden: Tensor, cond: Tensor, rope: tuple[Tensor, Tensor], spans: AttentionSpans) -> Tensor:
        hidden = hidden + self.attn(rms_norm(hidden, self.norm1), cond, rope, spans)
        return hidden + self.mlp(rms_norm(hidden, self.norm2))


class ConditionedAttention(nn.Module):
    """Self-attention whose queries and keys also see the vision features; values come from the hidden state alone."""

    def __init__(self, hidden_size: int, cond_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(hidden_size + cond_size, hidden_size + cond_size, bias=False)
        self.k_proj = nn.Linear(hidden_size + cond_size, hidden_size + cond_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor, cond: Tensor, rope: tuple[Tensor, Tensor], spans: AttentionSpans) -> Tensor:
        joint = torch.cat([hidden, cond], dim=-1)
        query = rotate(self.q_proj(joint).unflatten(-1, (self.num_heads, -1)), rope)
        key = rotate(self.k_proj(joint).unflatten(-1, (self.num_heads, -1)), rope)
        value = self.v_proj(hidden).unflatten(-1, (self.num_heads, -1))
        return self.o_proj(spans.attend(query, key, value).flatten(-2))


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden_size: int, inner_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, inner_size)
        self.up_proj = nn.Linear(hidden_size, inner_size)
        self.down_proj = nn.Linear(inner_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class AttentionSpans:
    """Spans of tokens that attend to each other: an image each, or a window of it. Never builds an N x N mask.

    Neighbouring images of one size run as a batch; windows are made contiguous and ordered by size, so that they run in
    as many batches as there are sizes.
    """

    def __init__(self, layout: VisualLayout, window: int | None = None) -> None:
        self.order: Tensor | None = None
        self.sizes = layout.image_sizes
        if window is not None:
            self.order, self.sizes = _window_order(layout, window)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """q, k [N, H, d], v [N, H, e] -> [N, H, e]; softmax scale 1 / sqrt(d)."""
        if self.order is not None:
            query, key, value = query[self.order], key[self.order], value[self.order]
        counts = [len(list(run)) for _, run in groupby(self.sizes)]
        lengths = [sum(run) for _, run in groupby(self.sizes)]
        parts = zip(query.split(lengths), key.split(lengths), value.split(lengths), counts)
        out = torch.cat([self._attend_equal(*part) for part in parts])
        if self.order is not None:
            out = torch.empty_like(out).index_copy(0, self.order, out)
        return out

    @staticmethod
    def _attend_equal(query: Tensor, key: Tensor, value: Tensor, count: int) -> Tensor:
        size = value.shape[-1]
        # on a GPU only the memory-efficient kernel takes values of another size (multiples of 8; 16 and 32 bits)
        if query.device.type == "cpu":  # its fused kernel wants equal head sizes; the other one builds N x N weights
            value = F.pad(value, (0, query.shape[-1] - size))
        query, key, value = (x.unflatten(0, (count, -1)).transpose(1, 2) for x in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value)[..., :size]
        return out.transpose(1, 2).flatten(0, 1)


def _window_order(layout: VisualLayout, window: int) -> tuple[Tensor, list[int]]:
    """Order that makes the tokens of each window neighbours, smallest windows first, and the windows' sizes.

    Made on the host, from the grids alone: it does not wait for the device.
    """
    windows: list[Tensor] = []
    start = 0
    for height, width in layout.grids:
        number = torch.arange(start, start + height * width).view(height, width)
        windows += [cell.flatten() for band in number.split(window) for cell in band.split(window, dim=1)]
        start += height * width
    windows.sort(key=len)
    return torch.cat(windows).to(layout.device, non_blocking=True), [len(cell) for cell in windows]


def rope_2d(row_col: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the 2-D rotary embedding, each [N, 1, dim] float32.

    `dim` / 4 frequencies theta^(-4 i / dim) turn with the row, the same ones with the column; both repeated twice.
    """
    freqs = ROPE_THETA ** (-torch.arange(0, dim // 2, 2, device=row_col.device).float() / (dim // 2))
    angles = (row_col.float().unsqueeze(-1) * freqs).flatten(1)  # [N, 2, dim / 4] -> [N, dim / 2]
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates pairs (i, i + dim / 2) of x [N, H, dim], in float32."""
    cos, sin = rope
    first, second = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
