"""Sharing trained parts: a folder with a model card, ready for the Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, ModelCardData

from gp.backbones import Backbone
from gp.formats.glimpse_folder import save_glimpse
from gp.pruners import GlimpsePruner
from gp.runs.writing import write_text
from gp.types import PruneOptions

TAGS = ("visual-token-pruning", "glimpse-prune")
CARD = """\
---
{metadata}
---

# A glimpse for {base}

Trained parts (glimpse token and visual importance predictor, {parameters:,} parameters) that let
`{base}` drop the visual tokens which a question does not need, after decoder layer {prune_layer} of {num_layers}.
The base itself is unchanged and is not part of this repository.

## Use

```python
import gp

model = gp.from_pretrained("{base}", glimpse="{name}")
answer = model.ask("picture.png", "what number is on the red card ?")  # your picture and question
print(answer.text)
print(answer.num_kept, "of", answer.num_visual, "visual tokens kept")
```

`generate`, batches and conversations take the same options, which are saved with the parts:

```json
{options}
```

## Training data

{data}

## Results

{metrics}

## Method

GlimpsePrune, [arXiv 2508.01548](https://arxiv.org/abs/2508.01548).
"""


def save_pretrained(
    folder: str | Path,
    glimpse: GlimpsePruner,
    backbone: Backbone,
    options: PruneOptions,
    *,
    name: str | None = None,
    data: str | Sequence[str] | None = None,
    metrics: dict[str, float] | None = None,
    **facts: Any,
) -> Path:
    """Writes the trained parts (safetensors), their config and a model card.

    Args:
        folder: made if missing; `gp.from_pretrained(base, glimpse=folder)` reads it back.
        glimpse: the trained parts.
        backbone: the base that they were trained on; only its name and shape are written.
        options: pruning defaults that travel along.
        name: what the card's example loads; default: the folder's name.
        data: what it was trained on, for the card and the config: words, or names of shards.
        metrics: figure by name, for the card and the config.
        facts: others that travel in the config (JSON), such as `base_revision` or `step`.

    Returns:
        The folder.
    """
    info = {key: value for key, value in {"data": data, "metrics": metrics, **facts}.items() if value is not None}
    folder = save_glimpse(folder, glimpse, backbone, options, info)
    card = model_card(glimpse, backbone, options, name or folder.name, data, metrics)
    write_text(folder / "README.md", card)
    return folder


def push_to_hub(
    repo_id: str, glimpse: GlimpsePruner, backbone: Backbone, options: PruneOptions, *, private: bool, **card: Any
) -> str:
    """Uploads what `save_pretrained` writes.

    Args:
        repo_id: owner/name; made if missing.
        glimpse, backbone, options: as for `save_pretrained`.
        private: for a repository that is made now.
        card: `data` and `metrics` of `save_pretrained`.

    Returns:
        Address of the commit.
    """
    api = HfApi()
    with TemporaryDirectory() as scratch:
        save_pretrained(scratch, glimpse, backbone, options, name=repo_id, **card)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=scratch, commit_message="Glimpse token and VIP"))


def model_card(
    glimpse: GlimpsePruner,
    backbone: Backbone,
    options: PruneOptions,
    name: str,
    data: str | Sequence[str] | None,
    metrics: dict[str, float] | None,
) -> str:
    """The card's Markdown; arguments as for `save_pretrained`."""
    rows = ["| figure | value |", "|---|---|", *(f"| {key} | {value:.4g} |" for key, value in (metrics or {}).items())]
    base = backbone.model.config.name_or_path
    metadata = ModelCardData(base_model=base, library_name="gp", pipeline_tag="image-text-to-text", tags=list(TAGS))
    listed = data if isinstance(data, str) or data is None else "\n".join(f"- `{one}`" for one in data)
    return CARD.format(
        metadata=metadata.to_yaml(),
        base=base,
        name=name,
        parameters=sum(p.numel() for p in glimpse.parameters()),
        prune_layer=glimpse.prune_layer,
        num_layers=backbone.num_layers,
        options=json.dumps(asdict(options), indent=2),
        data=listed or "Not stated.",
        metrics="\n".join(rows) if metrics else "Not stated.",
    )
