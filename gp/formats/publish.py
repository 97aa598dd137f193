"""Sharing trained parts: a folder with a model card, ready for the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCardData

from gp.backbones import Backbone
from gp.backbones.adapters import adapter_weights
from gp.formats.adapter_folder import save_adapter
from gp.formats.glimpse_folder import save_glimpse
from gp.pruners import GlimpsePruner
from gp.runs.writing import write_text
from gp.types import PruneOptions

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
NOT_STATED = "Not stated."
UNCHANGED = "The base itself is unchanged and is not part of this repository."
ADAPTED = """They belong to the base with the LoRA adapter beside them ({parameters:,} parameters): neither works
without the other, and both are loaded together. The base itself is not part of this repository."""
TASK = "visual-question-answering"
TAGS = ("visual-token-pruning", "glimpse-prune")
CARD = """\
---
{metadata}
---

# A glimpse for {base}

Trained parts (glimpse token and visual importance predictor{gate}, {parameters:,} parameters) that let
`{base}` drop the visual tokens which a question does not need, after decoder layer {prune_layer} of {num_layers}.
{changed}

## Use

```python
import gp

model = gp.from_pretrained({load})
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

## Training

{training}

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
    adapter: Any = None,
    name: str | None = None,
    data: str | Sequence[str] | None = None,
    metrics: Mapping[str, float] | None = None,
    measured_on: str | Sequence[str] | None = None,
    **facts: Any,
) -> Path:
    """Writes the trained parts (safetensors), their config and a model card.

    Args:
        folder: made if missing; `gp.from_pretrained(base, glimpse=folder)` reads it back.
        glimpse: the trained parts.
        backbone: the base that they were trained on; only its name and shape are written.
        options: pruning defaults that travel along.
        adapter: peft's wrapper around the base, if it has an adapter, which is written into the same folder.
        name: what the card's example loads; default: the folder's name.
        data: what it was trained on, for the card and the config: words, or names of shards.
        metrics: figure by name, for the card and the config; those that are not finite are left out.
        measured_on: what the metrics were measured on: words, or names of shards.
        facts: others that travel in the config (JSON), such as `base_revision`, which the card's example loads, too, or
            `training`.

    Returns:
        The folder.
    """
    figures = {key: float(value) for key, value in (metrics or {}).items() if isfinite(value)} or None
    given = {"data": data, "metrics": figures, "measured_on": measured_on, **facts}
    info = {key: value for key, value in given.items() if value is not None}
    folder = save_glimpse(folder, glimpse, backbone, options, info)
    if adapter is not None:
        save_adapter(folder, adapter, backbone, info.get("base_revision"))
    write_text(folder / "README.md", model_card(glimpse, backbone, options, name or folder.name, info))
    return folder


def push_to_hub(
    repo_id: str, glimpse: GlimpsePruner, backbone: Backbone, options: PruneOptions, *, private: bool, **card: Any
) -> str:
    """Uploads what `save_pretrained` writes.

    Args:
        repo_id: owner/name; made if missing.
        glimpse, backbone, options: as for `save_pretrained`.
        private: for a repository that is made now.
        card: what `save_pretrained` takes for the card and the config.

    Returns:
        Address of the commit.
    """
    api = HfApi()
    with TemporaryDirectory() as scratch:
        save_pretrained(scratch, glimpse, backbone, options, name=repo_id, **card)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=scratch, commit_message="Glimpse token and VIP"))


def model_card(
    glimpse: GlimpsePruner, backbone: Backbone, options: PruneOptions, name: str, info: Mapping[str, Any]
) -> str:
    """The card's Markdown.

    Args:
        glimpse, backbone, options, name: as for `save_pretrained`.
        info: of these `data`, `metrics`, `measured_on`, `base_revision` and `training`.
    """
    base = backbone.model.config.name_or_path
    keywords = {"revision": info.get("base_revision"), "glimpse": name}
    load = [_literal(base), *(f"{key}={_literal(value)}" for key, value in keywords.items() if value is not None)]
    data = info.get("data")
    adapter = sum(weight.numel() for _, weight in adapter_weights(backbone.model))
    return CARD.format(
        changed=ADAPTED.format(parameters=adapter) if adapter else UNCHANGED,
        metadata=_metadata(base, name, info).to_yaml(),
        gate=", and the gate of `zoom`" if glimpse.gate is not None else "",
        base=base,
        load=", ".join(load),
        parameters=sum(p.numel() for p in glimpse.parameters()),
        prune_layer=glimpse.prune_layer,
        num_layers=backbone.num_layers,
        options=json.dumps(asdict(options), indent=2),
        data=(data if isinstance(data, str) else "\n".join(f"- `{one}`" for one in data or ())) or NOT_STATED,
        training=f"```json\n{json.dumps(info['training'], indent=2)}\n```" if "training" in info else NOT_STATED,
        metrics=_results(info),
    )


def _metadata(base: str, name: str, info: Mapping[str, Any]) -> ModelCardData:
    """What the Hub shows beside the card; it knows bases by their hub ids only."""
    where = _measured_on(info)
    results = [
        EvalResult(
            task_type=TASK, dataset_type=where, dataset_name=where, metric_type=key, metric_value=round(value, 6)
        )
        for key, value in info.get("metrics", {}).items()
    ]
    return ModelCardData(
        base_model=base if HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        library_name="gp",
        pipeline_tag="image-text-to-text",
        tags=list(TAGS),
        model_name=name if results else None,
        eval_results=results or None,
    )


def _results(info: Mapping[str, Any]) -> str:
    if "metrics" not in info:
        return NOT_STATED
    rows = (f"| {key} | {value:.4g} |" for key, value in info["metrics"].items())
    return "\n".join([f"Measured on: {_measured_on(info)}", "", "| figure | value |", "|---|---|", *rows])


def _measured_on(info: Mapping[str, Any]) -> str:
    """In one line."""
    where = info.get("measured_on") or "not stated"
    return where if isinstance(where, str) else ", ".join(where)


def _literal(text: str) -> str:
    """As a literal of Python's: a folder's name may have quotes or backslashes."""
    return json.dumps(text, ensure_ascii=False)
