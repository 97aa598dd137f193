"""What the stock transformers models make of a prompt, by their own means."""

from __future__ import annotations

import torch


def joined(features) -> torch.Tensor:
    """Features of all images; the version of transformers decides whether they come as one tensor or one per image."""
    return features if isinstance(features, torch.Tensor) else torch.cat(list(features))


def embedded(base, ids, mask, is_visual, inputs) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Embeddings, rotary positions and deepstack features of a sequence, by the stock model's own means."""
    images = base.get_image_features(**{k: inputs[k] for k in ("pixel_values", "image_grid_thw") if k in inputs})
    features = torch.cat([f.flatten(0, -2) for f in images.pooler_output])
    hidden = base.model.language_model.embed_tokens(ids).masked_scatter(is_visual.unsqueeze(-1), features)
    deepstack = [joined(features) for features in getattr(images, "deepstack_features", ())]
    if "image_grid_thw" not in inputs:
        return hidden, (mask.long().cumsum(1) - 1).clamp(min=0), deepstack
    positions, _ = base.model.get_rope_index(ids, is_visual.int(), inputs["image_grid_thw"], attention_mask=mask)
    return hidden, positions, deepstack
