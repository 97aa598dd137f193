"""What differs between the vision towers of LLaVA: where their hidden states are, and whether one is of [CLS]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gp.backbones.sharded import run_part
from gp.backbones.vision_attention import received_attention
from gp.types import VisionAttention


class ClipTower:
    """CLIP: a [CLS] token before the patches, which tells by its attention what matters."""

    model_type = "clip_vision_model"
    num_cls = 1
    strategy = "default"  # of `vision_feature_select_strategy`: [CLS] stays out

    @staticmethod
    def states(tower: Any) -> list[nn.Module]:
        """The modules whose outputs are the hidden states 0, 1, ..."""
        return [tower.pre_layrnorm, *tower.encoder.layers]

    @staticmethod
    def attention(query: Tensor, keys: Tensor) -> Tensor:
        """From [CLS] to every patch: `query`, `keys` [n, H, 1 + V, d] -> [N]; 1 in sum with [CLS] itself."""
        weights = (query[:, :, :1] @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return weights.mean(1)[:, 0, 1:].flatten()


class SiglipTower:
    """SigLIP: patches alone, so that what matters is what the others attend to."""

    model_type = "siglip_vision_model"
    num_cls = 0
    strategy = "full"  # nothing to leave out

    @staticmethod
    def states(tower: Any) -> list[nn.Module]:
        """The modules whose outputs are the hidden states 0, 1, ..."""
        return [tower.embeddings, *tower.encoder.layers]

    @staticmethod
    def attention(query: Tensor, keys: Tensor) -> Tensor:
        """That each patch receives from all: `query`, `keys` [n, H, V, d] -> [N]; of an image, V in sum."""
        return torch.cat([received_attention(*one) for one in zip(query, keys)])


TOWERS: dict[str, type[ClipTower] | type[SiglipTower]] = {one.model_type: one for one in (ClipTower, SiglipTower)}


def patches(states: Tensor, num_cls: int) -> Tensor:
    """Leaves [CLS] out: [n, num_cls + V, C] -> [N, C]."""
    return states[:, num_cls:].flatten(0, 1)


def attention_of(
    tower: type[ClipTower] | type[SiglipTower], attn: Any, args: tuple, kwargs: dict[str, Any]
) -> VisionAttention:
    """Attention to every patch and the patches' keys, from a call of a block's attention.

    Args:
        attn: projects queries and keys, and rotates neither.
        args, kwargs: of the call; hidden states [n, num_cls + V, C].
    """
    hidden = args[0] if args else kwargs["hidden_states"]
    query, keys = (
        run_part(project, hidden).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2).float()
        for project in (attn.q_proj, attn.k_proj)
    )
    return VisionAttention(tower.attention(query, keys), keys.mean(1)[:, tower.num_cls :].flatten(0, 1))
