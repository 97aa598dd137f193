"""The trained parts on disk: a folder of a few MB with `config.json` and `glimpse.safetensors`, or a published one.

With a gate of `zoom`, `gate.safetensors` lies beside them (`gp.formats.gate_file`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from gp.backbones import Backbone
from gp.config.schema import GlimpseConfig, VIPConfig
from gp.embedded import EMBEDDED_GLIMPSES
from gp.formats import adapter_folder, published
from gp.formats.facts import base_facts, base_shape, is_outline
from gp.formats.gate_file import GATE, read_gate, without_gate, write_gate
from gp.formats.reading import (
    BaseShape,
    check_weights,
    read_object,
    read_options,
    read_prune_options,
    take,
)
from gp.pruners import GlimpsePruner
from gp.runs.differences import ADAPTER, differences, refuse_other_base
from gp.runs.writing import write_bytes, write_text
from gp.types import PruneOptions

FORMAT = "gp-glimpse-1"
WEIGHTS = "glimpse.safetensors"
CHECKSUM = "sha256"


def save_glimpse(
    folder: str | Path,
    pruner: GlimpsePruner,
    backbone: Backbone,
    options: PruneOptions,
    info: dict[str, Any] | None = None,
) -> Path:
    """Writes the trained parts, with what is needed to rebuild them and to refuse another base.

    Args:
        folder: made if missing.
        info: anything JSON that should travel along (base name and revision, data, metrics).

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, without_gate(pruner.state_dict()))
    gate = write_gate(folder, pruner.gate)
    base = {"name": backbone.model.config.name_or_path, **base_facts(backbone)}
    write_config(folder, base, *pruner.configs, options, {**(info or {}), **gate})
    return folder


def write_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Writes `glimpse.safetensors`, readable like any other file (safetensors' own writer makes it private)."""
    write_bytes(folder / WEIGHTS, save({k: v.detach().cpu().contiguous() for k, v in weights.items()}))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of our format; ValueError for another kind of file."""
    try:
        return load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS}: not a safetensors file ({error})") from error


def write_config(
    folder: Path,
    base: dict[str, Any],
    glimpse: GlimpseConfig,
    vip: VIPConfig,
    options: PruneOptions,
    info: dict[str, Any] | None = None,
) -> None:
    """Writes `config.json` of our format, beside weights that are there already: it has their checksum."""
    config = {
        "format": FORMAT,
        "base": base,
        "glimpse": asdict(glimpse),
        "vip": asdict(vip),
        "prune": asdict(options),
        **(info or {}),
    }
    config[CHECKSUM] = checksum(folder, config)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def write_calibration(folder: Path, threshold: float, facts: dict[str, Any]) -> None:
    """Writes a calibrated threshold into `config.json` of our format, and what was promised for it (JSON)."""
    path = folder / "config.json"
    config = read_object(path)
    config["prune"]["threshold"] = threshold
    write_text(path, json.dumps({**config, "calibration": {"threshold": threshold, **facts}}, indent=2) + "\n")


def checksum(folder: Path, config: Mapping[str, Any]) -> str:
    """Digest of the weights and of what gives them their meaning; pruning options may be edited by hand."""
    meaning = json.dumps({key: config[key] for key in ("base", "glimpse", "vip")}, sort_keys=True)
    return hashlib.sha256((folder / WEIGHTS).read_bytes() + meaning.encode()).hexdigest()


def load_glimpse(
    name: str | Path, backbone: Backbone, revision: str | None = None, hub: Mapping[str, Any] | None = None
) -> tuple[GlimpsePruner, PruneOptions]:
    """Reads trained parts, in our format or the published one, and checks that they belong to this base.

    Args:
        name: a folder, a hub id, or "tiny" (the embedded one).
        backbone: the base that they will sit on.
        revision: of the hub id.
        hub: how files are fetched, see `gp.backbones.source.BaseSource`.

    Returns:
        The parts in float32, in eval mode, and the pruning options that they were saved with.

    Raises:
        FileNotFoundError: no such folder, or no weights in it.
        ValueError: parts of another base, an unknown format, a file that is not tensors only.
    """
    folder = find_glimpse(name, revision, hub)
    here = base_facts(backbone)
    adapter = here.pop(ADAPTER, None)
    if adapter_folder.has_adapter(folder) and not adapter and not is_outline(backbone):
        raise ValueError(
            f"{folder}: holds a glimpse and the adapter that it belongs to, and this base has no adapter: load both "
            f"with gp.from_pretrained(base, glimpse={str(folder)!r})"
        )
    if published.is_reference_folder(folder):
        glimpse, vip, options = published.read_config(folder)
        weights, file = published.read_weights(folder), folder / published.WEIGHTS
        _check_base(folder, weights, glimpse, backbone)
    else:
        base, glimpse, vip, options = read_config(folder)
        # a glimpse of the bare base may be put on one with an adapter: whoever does names both
        refuse_other_base(base, {**here, ADAPTER: adapter} if ADAPTER in base else here, folder)
        weights, file = read_weights(folder), folder / WEIGHTS
    shape: Any = BaseShape.read(base_shape(backbone), f"{folder}: ")
    shape = backbone if glimpse.twig else replace(shape, num_vision_taps=backbone.num_vision_taps)
    check_weights(weights, shape, glimpse, vip, f"{file}: ")
    pruner = GlimpsePruner.build(backbone, glimpse, vip)
    pruner.load_state_dict(weights)
    if not published.is_reference_folder(folder):
        config = read_object(folder / "config.json")
        pruner.gate = read_gate(folder, config, backbone.hidden_size, backbone.norm_eps)
    return pruner.eval(), options


def start_from_glimpse(pruner: GlimpsePruner, backbone: Backbone, name: str) -> None:
    """Takes over the weights of other trained parts, which see the same features; a twig that they lack stays.

    Raises:
        FileNotFoundError, ValueError: as `load_glimpse`; or parts of other settings than prune layer and twig.
    """
    other = load_glimpse(name, backbone)[0]
    there, here = (_without_place(parts.meaning()) for parts in (other, pruner))
    if wrong := differences(there, here):
        raise ValueError(f"glimpse.init_from_glimpse {name}: {', '.join(map(str, wrong))}")
    weights, own = other.state_dict(), pruner.state_dict()
    if lost := [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]:
        raise ValueError(f"glimpse.init_from_glimpse {name}: its {lost[0]} has no place in glimpse.twig here")
    pruner.load_state_dict({**own, **weights})


def _without_place(meaning: dict[str, Any]) -> dict[str, Any]:
    return {**meaning, "glimpse": {k: v for k, v in meaning["glimpse"].items() if k not in ("prune_layer", "twig")}}


def find_glimpse(name: str | Path, revision: str | None = None, hub: Mapping[str, Any] | None = None) -> Path:
    """The folder of trained parts; of a hub id it is downloaded, with the adapter if there is one.

    Raises:
        FileNotFoundError: no such folder, or no trained parts in it.
    """
    folder = EMBEDDED_GLIMPSES.get(str(name), Path(name))
    if not folder.is_dir():
        if folder.is_absolute() or str(name).startswith(".") or str(name).count("/") != 1:
            raise FileNotFoundError(f"glimpse {name}: no such folder (and not a hub id of the form owner/name)")
        patterns = ["config.json", WEIGHTS, GATE, published.WEIGHTS, adapter_folder.CONFIG, adapter_folder.WEIGHTS]
        folder = Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns, **(hub or {})))
    if not (folder / "config.json").is_file():
        only = "; it holds an adapter alone: pass it as adapter=..." if adapter_folder.has_adapter(folder) else ""
        raise FileNotFoundError(f"glimpse {folder}: no config.json in it{only}")
    if not (folder / WEIGHTS).is_file() and not published.is_reference_folder(folder):
        raise FileNotFoundError(f"glimpse {folder}: neither {WEIGHTS} nor {published.WEIGHTS} in it")
    return folder


def read_config(folder: Path) -> tuple[dict[str, Any], GlimpseConfig, VIPConfig, PruneOptions]:
    """`config.json` of our format: the base that the parts belong to, and what to build.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not our format, or other bytes than were written, there or in the weights.
    """
    path = folder / "config.json"
    given = read_object(path)
    if given.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT!r}, got {given.get('format')!r}")
    base, glimpse, vip, prune = (take(given, key, dict, f"{path}: ") for key in ("base", "glimpse", "vip", "prune"))
    _compare_checksum(folder, given)
    BaseShape.read(base, f"{path}: base.")
    return (
        base,
        read_options(GlimpseConfig, glimpse, f"{path}: glimpse."),
        read_options(VIPConfig, vip, f"{path}: vip."),
        read_prune_options(prune, f"{path}: prune."),
    )


def _compare_checksum(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses changed bytes (ValueError); folders of earlier versions have no checksum to compare with."""
    if CHECKSUM in config and checksum(folder, config) != config[CHECKSUM]:
        raise ValueError(
            f"{folder}: {WEIGHTS}, or base, glimpse or vip in config.json, are not what was written: "
            f"{CHECKSUM} differs. Copy the folder again"
        )


def _check_base(folder: Path, weights: dict[str, Tensor], glimpse: GlimpseConfig, backbone: Backbone) -> None:
    """The published format names no base: its tensors' shapes do."""
    num_features = backbone.num_heads * len(glimpse.read_layers or [glimpse.prune_layer])
    expected = {
        "hidden_size": ("glimpse_token.embeddings", -1, backbone.hidden_size),
        "num_heads * read layers": ("vip.feature_in.weight", 1, num_features),
        "vision_hidden_size": ("vip.cond_in.0.weight", 1, backbone.vision_hidden_size),
    }
    wrong = []
    for name, (tensor, side, here) in expected.items():
        there = weights[tensor].shape if tensor in weights else ()
        if len(there) == 2 and there[side] != here:  # what is missing or no matrix is refused with all other tensors
            wrong.append(f"{name} {there[side]} there, {here} here")
    if wrong:
        raise ValueError(f"{folder}: trained on another base: {', '.join(wrong)}")
