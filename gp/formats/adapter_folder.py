"""An adapter on disk, in peft's own two files; the weights' file also says which base they belong to."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from gp.backbones import Backbone
from gp.backbones.adapters import KIND, ONLY, decoder_name, need_peft, new_adapter
from gp.formats.facts import base_facts
from gp.formats.reading import read_object
from gp.runs.differences import ADAPTER, refuse_other_base
from gp.runs.writing import write_bytes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "gp_base"  # key in the header of the weights
DECODER = r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers"  # in versions of transformers; vision towers differ
TENSOR = re.compile(rf"base_model\.model\.{DECODER}\.(\d+\.[\w.]*?(\w+)\.lora_(?:A|B)\.weight)")
SIMPLE: dict[str, tuple] = {
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}


def has_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, or a part of one."""
    return (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file()


def save_adapter(folder: str | Path, adapter: Any, backbone: Backbone, revision: str | None = None) -> Path:
    """Writes an adapter; `gp.from_pretrained(base, adapter=folder)` and peft read it.

    Args:
        folder: made if missing.
        adapter: peft's wrapper around the base.
        backbone: of the base.
        revision: of the base's hub id.
    """
    from peft import get_peft_model_state_dict

    folder, name = Path(folder), backbone.model.config.name_or_path
    folder.mkdir(parents=True, exist_ok=True)
    (own,) = adapter.peft_config
    weights = get_peft_model_state_dict(adapter, adapter_name=own, save_embedding_layers=False)
    facts = {key: value for key, value in base_facts(backbone).items() if key != ADAPTER}
    header = {"format": "pt", BASE: json.dumps({"name": name, "revision": revision, **facts})}
    whole = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    write_bytes(folder / WEIGHTS, save(whole, metadata=header))
    config = copy.copy(adapter.peft_config[own])
    config.base_model_name_or_path, config.revision, config.inference_mode = name, revision, True
    config.save_pretrained(str(folder))
    return folder


def load_adapter(
    name: str | Path, backbone: Backbone, revision: str | None = None, hub: Mapping[str, Any] | None = None
) -> Any:
    """Puts an adapter from disk on a base, frozen and in the base's dtype.

    Names of the decoder's layers may be those of older versions of transformers.

    Args:
        name: a folder, or a hub id.
        backbone: of a stock model, whose layers are changed in place.
        revision: of the hub id.
        hub: how files are fetched, see `gp.backbones.source.BaseSource`.

    Returns:
        peft's wrapper.

    Raises:
        FileNotFoundError: no such folder, or one of the two files is missing.
        ValueError: peft is not installed; no LoRA, or one that does more than change matrices of the decoder's layers;
            one of another base or of other shapes.
    """
    need_peft()
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    folder = _find(name, revision, hub or {})
    given, path = read_object(folder / CONFIG), folder / WEIGHTS
    _check_kind(folder / CONFIG, given)
    weights, base = _read(path)
    if base is not None:
        here = {key: value for key, value in base_facts(backbone).items() if key != ADAPTER}
        refuse_other_base(base, here, path)
    found = {key: TENSOR.fullmatch(key) for key in weights}
    if wrong := sorted(key for key, match in found.items() if match is None):
        raise ValueError(f"{path}: {wrong[0]} is no LoRA weight of a decoder layer ({len(wrong)} such tensors)")
    layers = f"base_model.model.{decoder_name(backbone)}.layers."
    renamed = {layers + match[1]: weights[key] for key, match in found.items() if match is not None}
    matrices = {match[2] for match in found.values() if match is not None}
    more = {key: given[key] for key in ("use_rslora",) if given.get(key)}
    adapter = new_adapter(backbone, given["r"], given["lora_alpha"], matrices, **more)
    _compare(path, renamed, get_peft_model_state_dict(adapter, adapter_name=ONLY, save_embedding_layers=False))
    set_peft_model_state_dict(adapter, renamed, ONLY)
    for one, weight in adapter.named_parameters():
        if ".lora_" in one:
            weight.data = weight.data.to(backbone.dtype)
    return adapter.requires_grad_(False).eval()


def _find(name: str | Path, revision: str | None, hub: Mapping[str, Any]) -> Path:
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or str(name).startswith(".") or str(name).count("/") != 1:
            raise FileNotFoundError(f"adapter {name}: no such folder (and not a hub id of the form owner/name)")
        folder = Path(snapshot_download(str(name), revision=revision, allow_patterns=[CONFIG, WEIGHTS], **hub))
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"adapter {folder}: no {file} in it")
    return folder


def _check_kind(path: Path, given: Mapping[str, Any]) -> None:
    if given.get("peft_type") != KIND:
        raise ValueError(f"{path}: expected peft_type {KIND!r}, got {given.get('peft_type')!r}")
    for key in ("r", "lora_alpha"):
        if not isinstance(given.get(key), int | float) or isinstance(given[key], bool):
            raise ValueError(f"{path}: {key} must be a number, got {given.get(key)!r}")
    for key, values in SIMPLE.items():
        if given.get(key) not in (*values, None):
            raise ValueError(f"{path}: {key} {given[key]!r} is not read; expected {values[0]!r}")
    if given.get("use_dora"):
        raise ValueError(f"{path}: use_dora true is not read; expected false")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors, and the facts of their base if the file has them."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error
    return weights, json.loads(header[BASE]) if BASE in header else None


def _compare(path: Path, there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> None:
    """Refuses an adapter that lacks a weight of a layer, or has one of another shape (ValueError)."""
    for key in sorted({*there, *here}):
        shapes = [tuple(weights[key].shape) if key in weights else None for weights in (there, here)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{path}: {key} is {shapes[0] or 'missing'} there, {shapes[1] or 'unknown'} on this base: "
                "an adapter of another base, or a part of one"
            )
