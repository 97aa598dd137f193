"""Sharing trained parts: a folder with a model card, ready for the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from gp.checkpoint import save_glimpse
from gp.model import GlimpseModel

CARD = """\
---
library_name: gp
base_model: {base}
tags:
- visual-token-pruning
- glimpse-prune
pipeline_tag: image-text-to-text
---

# A glimpse for {base}

Trained parts (glimpse token and visual importance predictor, {parameters:,} parameters) that let
`{base}` drop the visual tokens which a question does not need, after decoder layer {prune_layer} of {num_layers}.
The base itself is unchanged and is not part of this repository.

## Use

```python
import gp

model = gp.from_pretrained("{base}", glimpse="{name}")
inputs = model.processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
out = model.generate(**inputs, max_new_tokens=64)
```

## Training data

{data}

## Results

{metrics}

## Method

GlimpsePrune, [arXiv 2508.01548](https://arxiv.org/abs/2508.01548).
"""


def save_pretrained(
    model: GlimpseModel,
    folder: str | Path,
    *,
    name: str | None = None,
    data: str | None = None,
    metrics: dict[str, float] | None = None,
) -> Path:
    """Writes the trained parts (safetensors), their config and a model card.

    Args:
        model: with trained parts.
        folder: made if missing; `gp.from_pretrained(base, glimpse=folder)` reads it back.
        name: what the card's example loads; default: the folder's name.
        data: what it was trained on, for the card.
        metrics: figure by name, for the card and the config.

    Returns:
        The folder.

    Raises:
        ValueError: a model without trained parts.
    """
    if model.glimpse is None:
        raise ValueError("this model has no trained parts to save: it was loaded without glimpse=...")
    info = {key: value for key, value in (("data", data), ("metrics", metrics)) if value is not None}
    folder = save_glimpse(folder, model.glimpse, model.backbone, model.options, info)
    (folder / "README.md").write_text(model_card(model, name or folder.name, data, metrics))
    return folder


def push_to_hub(model: GlimpseModel, repo_id: str, *, private: bool = False, **card: Any) -> str:
    """Uploads what `save_pretrained` writes.

    Args:
        repo_id: owner/name; made if missing.
        private: for a repository that is made now.
        card: `data` and `metrics` of `save_pretrained`.

    Returns:
        Address of the commit.
    """
    api = HfApi()
    with TemporaryDirectory() as scratch:
        save_pretrained(model, scratch, name=repo_id, **card)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=scratch, commit_message="Glimpse token and VIP"))


def model_card(model: GlimpseModel, name: str, data: str | None, metrics: dict[str, float] | None) -> str:
    """The card's markdown."""
    rows = ["| figure | value |", "|---|---|", *(f"| {key} | {value:.4g} |" for key, value in (metrics or {}).items())]
    return (
        CARD.format(
            base=model.base.config.name_or_path,
            name=name,
            parameters=sum(p.numel() for p in model.glimpse.parameters()),
            prune_layer=model.glimpse.prune_layer,
            num_layers=model.backbone.num_layers,
            data=data or "Not stated.",
            metrics="\n".join(rows) if metrics else "Not stated.",
        )
        + f"\nPruning options saved with it:\n\n```json\n{json.dumps(vars(model.options), indent=2)}\n```\n"
    )
