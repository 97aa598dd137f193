"""Reads and writes the published GlimpsePrune folders (`config.json` + `new_modules_gp.pt`).

The only place that knows the reference implementation's words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gp.config.schema import GlimpseConfig, VIPConfig
from gp.formats.reading import read_object, read_options, read_prune_options, take
from gp.runs.writing import replacing
from gp.types import PruneOptions

WEIGHTS = "new_modules_gp.pt"
BASE = "config.json of the base: "
FAMILIES = ("qwen2_5_vl", "llava")  # that the reference has
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
        ValueError: not its form, or a predictor type other than the published one.
    """
    path = folder / "config.json"
    given, where = _flat(read_object(path)), f"{path}: "
    if given.get("attn_fuse_type", "AttnFuserV1") != "AttnFuserV1":
        raise ValueError(f"{where}unknown attn_fuse_type {given['attn_fuse_type']!r}")
    glimpse = {
        "num_tokens": take(given, "le_length", int, where, 1),
        "layers": take(given, "le_layers", list, where),
        "norm": take(given, "le_norm_type", str, where, "rmsnorm"),
        # any number beyond means the last
        "prune_layer": min(take(given, "reduce_layer", int, where), take(given, "num_hidden_layers", int, where) - 1),
        "read_layers": take(given, "selected_layers", list, where),
        # the original's LLaVA takes the log-softmax whatever this flag says (measured: golden case l04)
        "attention_logits": take(given, "use_attention_logits", bool, where, False) and not _is_llava(given, where),
    }
    vip = {
        "hidden_size": take(given, "attn_fuse_size", int, where),
        "cond_size": take(given, "visual_cond_size", int, where),
        "num_heads": take(given, "attn_fuse_num_heads", int, where, 4),
        "taps": take(given, "selected_visual_layers", list, where),
        "attention": "global" if take(given, "attn_fuse_global", bool, where, True) else "window",
        "deep_supervision": take(given, "deep_supervision", bool, where, False),
    }
    options = {
        "threshold": take(given, "reduce_threshold", float, where, 0.5),
        "max_keep_ratio": take(given, "max_remain_ratio", float, where, None),
        "min_kept": take(given, "min_remain_num", int, where, 0),
        "anchors": take(given, "anchor_positions", list, where, []),
    }
    return (
        read_options(GlimpseConfig, glimpse, where),
        read_options(VIPConfig, vip, where),
        read_prune_options(options, where),
    )


def read_base(folder: Path) -> dict[str, Any]:
    """Shape of the base that a published folder belongs to, from the base's fields that its config repeats.

    Raises:
        ValueError: they are not all there.
    """
    path = folder / "config.json"
    return base_of(read_object(path), f"{path}: ")


def base_of(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Shape of a base, from its own config or from one that repeats it.

    Args:
        config: flat, or with a section for the decoder.
        where: stands before the key in messages.

    Raises:
        ValueError: a size is missing.
    """
    given = _flat(config)
    vision = take(given, "vision_config", dict, where, {})
    name = take(given, "_name_or_path", str, where, None)
    return {
        "name": name or None,
        "model_type": "llava" if _is_llava(given, where) else given["model_type"].removesuffix("_gp"),
        "num_layers": take(given, "num_hidden_layers", int, where),
        "hidden_size": take(given, "hidden_size", int, where),
        "num_heads": take(given, "num_attention_heads", int, where),
        "vision_hidden_size": take(given, "mm_hidden_size", int, where, vision.get("hidden_size")),
    }


def make_config(
    base_config: dict[str, Any], glimpse: GlimpseConfig, vip: VIPConfig, options: PruneOptions
) -> dict[str, Any]:
    """The reference's `config.json`: the base's own fields, as transformers 4.51 wrote them, and its words for ours.

    Raises:
        ValueError: a family, pruning options or features that the reference does not know, or a LLaVA base in another
            naming than the original one.
    """
    family = base_of(base_config, BASE)["model_type"]
    if family not in FAMILIES:
        raise ValueError(f"{BASE}model_type: the published format knows {' and '.join(FAMILIES)}, got {family!r}")
    if options.fixed_keep_ratio is not None or options.num_keep is not None or options.budget_scope != "prompt":
        raise ValueError("the published format knows no fixed_keep_ratio, no num_keep and no budget_scope but 'prompt'")
    if _is_llava(base_config, BASE):
        if "mm_vision_tower" not in base_config:
            raise ValueError("the published format of LLaVA repeats the config of a base in the original naming")
        if glimpse.attention_logits:
            raise ValueError("the published format of LLaVA knows no raw attention logits, only their log-softmax")
        base_config = {**base_config, "model_type": "llava_llama"}
    base_config = _as_transformers_4(base_config)
    num_layers = take(base_config, "num_hidden_layers", int, BASE)
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


def _flat(given: dict[str, Any]) -> dict[str, Any]:
    """The decoder's sizes beside the rest: transformers 5 writes them in a section of their own."""
    text = given.get("text_config")
    return {**text, **given} if isinstance(text, dict) else given


def _as_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """The same config in the words of transformers 4.51, which the reference needs.

    It would take sizes from a section for defaults without a word; it has `rope_theta` and `rope_scaling` where
    transformers 5 has `rope_parameters`, and `torch_dtype` where that has `dtype`.
    """
    if not isinstance(config.get("text_config"), dict):
        return config
    flat = _flat(config)
    del flat["text_config"]
    flat.pop("layer_types", None)
    if isinstance(rope := flat.pop("rope_parameters", None), dict):
        flat["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
        flat["rope_theta"] = rope.get("rope_theta")
    if "dtype" in flat:
        flat["torch_dtype"] = flat.pop("dtype")
    return flat


def _is_llava(config: dict[str, Any], where: str) -> bool:
    return take(config, "model_type", str, where).startswith("llava")


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
        found = sorted(map(str, given)) if isinstance(given, dict) else type(given).__name__
        raise ValueError(f"{path}: expected the entries {sorted(PARTS)}, got {found}")
    embeddings = given.pop("learnable_embeddings")
    if isinstance(embeddings, dict):
        embeddings = embeddings.get("weight")
    for name, part in given.items():
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise ValueError(f"{path}: {name}: expected tensors by name, got {type(part).__name__}")
    try:
        predictor = {f"vip.{vip_name(k, to_ours=True)}": v for k, v in given["attn_fuser"].items()}
    except ValueError as error:
        raise ValueError(f"{path}: attn_fuser: {error}") from error
    weights = {"glimpse_token.embeddings": embeddings}
    weights |= {f"glimpse_token.proj.{k}": v for k, v in given["le_proj"].items()}
    weights |= {f"glimpse_token.norm.{k}": v for k, v in given["le_norm"].items()}
    weights |= predictor
    if wrong := [name for name, value in weights.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path}: {wrong[0]}: expected a tensor, got {type(weights[wrong[0]]).__name__}")
    return weights


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
    with replacing(folder / WEIGHTS) as unfinished:
        torch.save(out, unfinished)


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
