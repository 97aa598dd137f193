"""GlimpsePrune: a learned token looks at the image, the VIP turns its attention into importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gp.backbones.twig import Twig
from gp.config.schema import GlimpseConfig, VIPConfig
from gp.modules import Gate, GlimpseToken, VisualImportancePredictor
from gp.pruners.base import Pruner, PruneView

HIDDEN = "glimpse"  # note: behind the prune layer the glimpse token's state and that of what it looks at, [B, 2, D]
BEGINNING = ("init_from_prompt", "init_from_glimpse")  # where training began: gives the weights no other meaning


class GlimpsePruner(Pruner):
    """A learned token looks at the image; the VIP turns its attention into importance.

    Args:
        glimpse_token: vectors for the decoder layers.
        vip: the predictor.
        prune_layer: 0-based, the last decoder layer that sees all tokens.
        read_layers: layers whose glimpse attention is the VIP's feature, not after `prune_layer` or the twig.
        taps: vision layers that condition the VIP, in the order of its blocks.
        attention_logits: raw q.k / sqrt(d) as features; else the log-softmax over all keys.
        twig: layers of its own behind `prune_layer`, the last of which is read; None: none.

    Attributes:
        configs: what `build` made it from, saved along with the weights.
        gate: of `zoom`, if one was trained (task `gate`).

    Raises:
        ValueError: a read layer behind the prune layer, or behind the twig; a twig whose last layer is not read.
    """

    name: ClassVar[str] = "glimpse"
    paper = "2508.01548"
    configs: tuple[GlimpseConfig, VIPConfig]

    def __init__(
        self,
        glimpse_token: GlimpseToken,
        vip: VisualImportancePredictor,
        prune_layer: int,
        read_layers: Sequence[int],
        taps: Sequence[int],
        attention_logits: bool = True,
        twig: Twig | None = None,
    ) -> None:
        super().__init__()
        if twig is None and max(read_layers) > prune_layer:
            raise ValueError(f"read_layers {list(read_layers)} come after prune_layer {prune_layer}")
        if twig is not None and max(read_layers) != twig.last:
            raise ValueError(
                f"read_layers {list(read_layers)}: the last one must be the last layer of the twig, {twig.last}"
            )
        self.glimpse_token = glimpse_token
        self.vip = vip
        self.gate: Gate | None = None
        self.twig = twig
        self.stages = (prune_layer,)
        self.read_layers = tuple(read_layers)
        self.taps = tuple(taps)
        self.log_softmax = not attention_logits

    @classmethod
    def build(cls, backbone: Any, glimpse: GlimpseConfig, vip: VIPConfig) -> GlimpsePruner:
        """Untrained parts in float32, sized for a base.

        Args:
            backbone: a `Backbone`, or sizes alone as `gp.formats.reading.BaseShape` has them.
            glimpse, vip: their settings.

        Raises:
            ValueError: layers or taps that the base does not have.
        """
        _check_layers("glimpse.prune_layer", [glimpse.prune_layer], backbone.num_layers)
        last = glimpse.prune_layer + glimpse.twig
        _check_layers("glimpse.prune_layer + glimpse.twig", [last], backbone.num_layers)
        _check_layers("glimpse.read_layers", glimpse.read_layers or [], backbone.num_layers)
        _check_layers("glimpse.layers", glimpse.layers or [0], backbone.num_layers)
        _check_layers("vip.taps", vip.taps, backbone.num_vision_taps)
        read_layers = glimpse.read_layers or [last]
        token = GlimpseToken(
            backbone.hidden_size,
            glimpse.layers if glimpse.layers is not None else range(backbone.num_layers),
            glimpse.num_tokens,
            glimpse.norm,
            backbone.norm_eps,
        )
        predictor = VisualImportancePredictor(
            num_features=len(read_layers) * backbone.num_heads,
            vision_hidden_size=backbone.vision_hidden_size,
            num_taps=len(vip.taps),
            hidden_size=vip.hidden_size,
            cond_size=vip.cond_size,
            num_heads=vip.num_heads,
            attention=vip.attention,
            window=backbone.window,
            deep_supervision=vip.deep_supervision,
        )
        twig = Twig(backbone, glimpse.prune_layer + 1, glimpse.twig) if glimpse.twig else None
        pruner = cls(token, predictor, glimpse.prune_layer, read_layers, vip.taps, glimpse.attention_logits, twig)
        pruner.configs = (glimpse, vip)
        return pruner

    def meaning(self) -> dict[str, Any]:
        """Settings that give the weights their meaning, with defaults spelled out: plain values, by option."""
        glimpse, vip = (asdict(config) for config in self.configs)
        glimpse |= {"layers": list(self.glimpse_token.layers), "read_layers": list(self.read_layers)}
        for name in BEGINNING:
            del glimpse[name]
        if not self.configs[0].twig:
            del glimpse["twig"]  # parts without one may be older than the option
        return {"glimpse": glimpse, "vip": {**vip, "taps": list(vip["taps"])}}

    @property
    def prune_layer(self) -> int:
        return self.stages[0]

    def tokens(self) -> dict[int, Tensor]:
        return self.glimpse_token.by_layer()

    @property
    def needs_hidden(self) -> bool:  # type: ignore[override]  # of the base's attribute: a gate may come later
        """Its scores come from attention alone; a twig reads the prompt behind the layer, a gate the token itself."""
        return self.twig is not None or self.gate is not None

    def own_layers(self) -> Twig | None:
        return self.twig

    def scores(self, view: PruneView) -> Tensor:
        return self.all_scores(view)[-1]

    def keep(self, scores: Tensor, view: PruneView) -> Tensor:
        if self.gate is not None:
            view.notes[HIDDEN] = looked_at(scores, view)  # the token itself leaves the sequence now
        return super().keep(scores, view)

    def all_scores(self, view: PruneView) -> list[Tensor]:
        """Importance logits [N] of every output head (several only when training with deep supervision)."""
        features = torch.cat([view.attention[layer] for layer in self.read_layers], dim=-1)
        return self.vip(features, view.prompt.taps, view.layout)


def looked_at(scores: Tensor, view: PruneView) -> Tensor:
    """What a gate reads behind the prune layer.

    Returns:
        [B, 2, D]: the last position's hidden state, and the mean of those of the visual tokens of each prompt, each
        brought to length 1 and weighted by its importance; zeros for a prompt without images.
    """
    hidden, layout = view.visual_hidden(), view.layout
    hidden = F.normalize(hidden.float(), dim=-1)
    weights = scores.float().sigmoid()
    row = view.prompt.hidden.new_tensor(layout.rows, dtype=torch.long).repeat_interleave(
        view.prompt.hidden.new_tensor([h * w for h, w in layout.grids], dtype=torch.long)
    )
    total = weights.new_zeros(layout.num_prompts).index_add(0, row, weights)
    seen = hidden.new_zeros(layout.num_prompts, hidden.shape[-1]).index_add(0, row, weights[:, None] * hidden)
    seen = seen / total.clamp(min=1e-9)[:, None]
    return torch.stack([view.prompt.hidden[:, -1].float(), seen], dim=1)


def _check_layers(key: str, layers: Sequence[int], limit: int) -> None:
    if outside := [k for k in layers if not 0 <= k < limit]:
        raise ValueError(f"{key} {outside} outside 0..{limit - 1}, the layers of this base")
