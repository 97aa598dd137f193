"""Reads and writes the published GlimpsePrune folders (`config.json` + `new_modules_gp.pt`).

The only place that knows the reference implementation's words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gp.config.schema import GlimpseConfig, VIPConfig
from gp.types import PruneOptions

WEIGHTS = "new_modules_gp.pt"
PARTS = {"attn_fuser", "learnable_embeddings", "le_proj", "le_norm"}

# ours -> theirs, inside the VIP
_VIP_NAMES = {
    "feature_in.": "attn_in_proj.",
    "cond_in.": "cond_in_projs.",
    "blocks.": "layers.",
    "heads.": "attn_out_projs.",
}


def is_reference_folder(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read_config(folder: Path) -> tuple[GlimpseConfig, VIPConfig, PruneOptions]:
    """Translates the reference's `config.json`.

    Raises:
        ValueError: a predictor type other than the published one.
    """
    given = json.loads((folder / "config.json").read_text())
    if given.get("attn_fuse_type", "AttnFuserV1") != "AttnFuserV1":
        raise ValueError(f"{folder}/config.json: unknown attn_fuse_type {given['attn_fuse_type']!r}")
    glimpse = GlimpseConfig(
        num_tokens=given.get("le_length", 1),
        layers=list(given["le_layers"]),
        norm=given.get("le_norm_type", "rmsnorm"),
        prune_layer=min(given["reduce_layer"], given["num_hidden_layers"] - 1),  # any number beyond means the last
        read_layers=list(given["selected_layers"]),
        # the original's LLaVA takes the log-softmax whatever this flag says (measured: golden case l04)
        attention_logits=given.get("use_attention_logits", False) and not _is_llava(given),
    )
    vip = VIPConfig(
        hidden_size=given["attn_fuse_size"],
        cond_size=given["visual_cond_size"],
        num_heads=given.get("attn_fuse_num_heads", 4),
        taps=list(given["selected_visual_layers"]),
        attention="global" if given.get("attn_fuse_global", True) else "window",
        deep_supervision=given.get("deep_supervision", False),
    )
    options = PruneOptions(
        threshold=given.get("reduce_threshold", 0.5),
        max_keep_ratio=given.get("max_remain_ratio"),
        min_kept=given.get("min_remain_num") or 0,
        anchors=tuple(given.get("anchor_positions") or ()),
    )
    return glimpse, vip, options


def read_base(folder: Path) -> dict[str, Any]:
    """Shape of the base that a published folder belongs to, from the base's fields that its config repeats."""
    given = json.loads((folder / "config.json").read_text())
    vision_hidden_size = given.get("mm_hidden_size") or given.get("vision_config", {}).get("hidden_size")
    return {
        "name": given.get("_name_or_path") or None,
        "model_type": "llava" if _is_llava(given) else given["model_type"].removesuffix("_gp"),
        "num_layers": given["num_hidden_layers"],
        "hidden_size": given["hidden_size"],
        "num_heads": given["num_attention_heads"],
        "vision_hidden_size": vision_hidden_size,
    }


def make_config(
    base_config: dict[str, Any], glimpse: GlimpseConfig, vip: VIPConfig, options: PruneOptions
) -> dict[str, Any]:
    """The reference's `config.json`: the base's own fields and its words for ours.

    Raises:
        ValueError: pruning options or features that the reference does not know, or a LLaVA base in another naming than
            the original one.
    """
    if options.fixed_keep_ratio is not None or options.budget_scope != "prompt":
        raise ValueError("the published format knows no fixed_keep_ratio and no budget_scope but 'prompt'")
    if _is_llava(base_config):
        if "mm_vision_tower" not in base_config:
            raise ValueError("the published format of LLaVA repeats the config of a base in the original naming")
        if glimpse.attention_logits:
            raise ValueError("the published format of LLaVA knows no raw attention logits, only their log-softmax")
        base_config = {**base_config, "model_type": "llava_llama"}
    num_layers = base_config.get("num_hidden_layers") or base_config["text_config"]["num_hidden_layers"]
    return {
        **base_config,
        "model_type": f"{base_config['model_type'].removesuffix('_gp')}_gp",
        "le_length": glimpse.num_tokens,
        "le_layers": glimpse.layers if glimpse.layers is not None else list(range(num_layers)),
        "le_norm_type": glimpse.norm,
        "le_dropout_prob": 0.0,
        "reduce_layer": glimpse.prune_layer,
        "selected_layers": glimpse.read_layers or [glimpse.prune_layer],
        "use_attention_logits": glimpse.attention_logits,
        "attn_fuse_type": "AttnFuserV1",
        "attn_fuse_size": vip.hidden_size,
        "visual_cond_size": vip.cond_size,
        "attn_fuse_num_heads": vip.num_heads,
        "attn_fuse_hidden_act": "silu",
        "selected_visual_layers": vip.taps,
        "attn_fuse_global": vip.attention == "global",
        "deep_supervision": vip.deep_supervision,
        "ori_attn_supervision": False,
        "reduce_threshold": options.threshold,
        "max_remain_ratio": options.max_keep_ratio,
        "min_remain_num": options.min_kept,
        "anchor_positions": list(options.anchors),
        "use_ref_masks": False,
        "use_zero_masks": False,
    }


def _is_llava(config: dict[str, Any]) -> bool:
    return config["model_type"].startswith("llava")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The trained parts under our names (tensors only: a pickle with anything else is refused).

    Raises:
        ValueError: a pickle that is not tensors only, or other entries than the reference writes.
    """
    path = folder / WEIGHTS
    try:
        given: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: not a file of tensors only, refused ({type(error).__name__})") from error
    if not isinstance(given, dict) or set(given) != PARTS:
        found = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise ValueError(f"{path}: expected the entries {sorted(PARTS)}, got {found}")
    embeddings = given["learnable_embeddings"]
    weights = {"glimpse_token.embeddings": embeddings if isinstance(embeddings, Tensor) else embeddings["weight"]}
    weights |= {f"glimpse_token.proj.{k}": v for k, v in given["le_proj"].items()}
    weights |= {f"glimpse_token.norm.{k}": v for k, v in given["le_norm"].items()}
    return weights | {f"vip.{vip_name(k, to_ours=True)}": v for k, v in given["attn_fuser"].items()}


def write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """Writes `new_modules_gp.pt` from weights under our names."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}

    out = {
        "attn_fuser": {vip_name(k, to_ours=False): v for k, v in part("vip.").items()},
        "learnable_embeddings": weights["glimpse_token.embeddings"],
        "le_proj": part("glimpse_token.proj."),
        "le_norm": part("glimpse_token.norm."),
    }
    torch.save(out, folder / WEIGHTS)


def vip_name(name: str, to_ours: bool) -> str:
    """Renames a parameter of the importance predictor from the reference's words to ours, or back.

    Raises:
        ValueError: no such parameter.
    """
    for ours, theirs in _VIP_NAMES.items():
        old, new = (theirs, ours) if to_ours else (ours, theirs)
        if name.startswith(old):
            return new + name[len(old) :]
    raise ValueError(f"unknown parameter {name!r} of the importance predictor")
