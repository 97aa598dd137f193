"""Loads the model that users hold from a hub id or folder: base, processor, trained glimpse."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from gp.backbones import Backbone, backbone_of, find_family
from gp.backbones.adapters import new_adapter
from gp.backbones.processor import load_processor
from gp.backbones.quantizing import quantized
from gp.config import TrainConfig
from gp.config.fitting import nearest
from gp.config.gate import GateRunConfig
from gp.config.load import processor_options, prune_options
from gp.config.plus import PlusConfig
from gp.config.schema import ModelConfig
from gp.embedded import EMBEDDED_BASES
from gp.formats.adapter_folder import has_adapter, load_adapter
from gp.formats.glimpse_folder import find_glimpse, load_glimpse
from gp.model import GlimpseModel
from gp.modules import Gate

OWN = (
    "glimpse",
    "adapter",
    "revision",
    "glimpse_revision",
    "adapter_revision",
    "dtype",
    "attn_implementation",
    "device_map",
    "compile_decode",
    "fast_tower",
)
OF_HUB = ("cache_dir", "token", "local_files_only", "force_download")
OF_MODEL = ("quantization_config", "max_memory", "offload_folder", "offload_buffers", "use_safetensors", "variant")
OF_PROCESSOR = ("min_pixels", "max_pixels", "do_pad")
INSTEAD = {
    "load_in_4bit": "pass quantization_config=transformers.BitsAndBytesConfig(load_in_4bit=True)",
    "load_in_8bit": "pass quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True)",
    "device": "pass device_map=..., or call model.to(device) afterwards",
    "low_cpu_mem_usage": "transformers always loads so: leave it out",
    "use_flash_attention_2": "pass attn_implementation='flash_attention_2'",
    "trust_remote_code": "gp loads transformers' own classes and runs no code of a repository: leave it out",
}


def from_pretrained(
    base: str | Path,
    glimpse: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    glimpse_revision: str | None = None,
    adapter_revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    device_map: Any = None,
    compile_decode: bool = False,
    fast_tower: bool = False,
    **options: Any,
) -> GlimpseModel:
    """Loads a base and, if given, its trained glimpse, and the adapter that lies in the glimpse's folder.

    Args:
        base: hub id or folder of a supported model, or "tiny" (embedded, offline).
        glimpse: hub id or folder of trained parts (ours or the published format), or "tiny".
        adapter: hub id or folder of a LoRA adapter for the base, where the glimpse's folder holds none; needs peft.
        revision, glimpse_revision, adapter_revision: of the hub ids.
        dtype: of the base and the trained parts, e.g. "bfloat16"; "auto" (the default): what the base was saved in.
            `torch_dtype` is the same.
        attn_implementation: `eager`, `sdpa`, `flash_attention_2`, ...; transformers' own switch.
        device_map: as in transformers; needs accelerate.
        compile_decode: whether calls that do not say it compile the decoding, see `GlimpseModel.generate`.
        fast_tower: whether MLPs of the vision tower whose width is no multiple of 128 run on copies of their weights
            that zeros fill up to one: the same features, for a GPU's faster kernels. Qwen's towers only.
        options: of the base: transformers' `quantization_config` (its own config objects), `max_memory`,
            `offload_folder`, `offload_buffers`, `use_safetensors`, `variant`. Of the processor: `min_pixels`,
            `max_pixels` or `do_pad`, see `gp.backbones.processor.load_processor`. Of every download: `cache_dir`,
            `token`, `local_files_only`, `force_download`.

    Raises:
        FileNotFoundError, ValueError: see `gp.formats.glimpse_folder.load_glimpse` and
            `gp.formats.adapter_folder.load_adapter`.
        FileNotFoundError: `base` is a path, and there is no such folder.
        TypeError: a base that is no name, or a switch that is neither True nor False.
        ValueError: two adapters, limits of pixels that are no numbers or contradict each other, an option that nobody
            takes, a `dtype` that is none, or `device_map` without accelerate.
    """
    _refuse(options)
    _check_types(base, {"compile_decode": compile_decode, "fast_tower": fast_tower})
    _check_limits(options.get("min_pixels"), options.get("max_pixels"))
    hub, of_model, of_processor = (_given(options, names) for names in (OF_HUB, OF_MODEL, OF_PROCESSOR))
    found_dtype = _dtype(dtype, options.get("torch_dtype"))
    if device_map is not None:
        _need_accelerate(device_map)
    folder = None if glimpse is None else find_glimpse(glimpse, glimpse_revision, hub)
    if folder is not None and has_adapter(folder):
        if adapter is not None:
            raise ValueError(
                f"from_pretrained: glimpse {glimpse} has an adapter of its own: leave out adapter={adapter}"
            )
        adapter = folder
    place = EMBEDDED_BASES.get(str(base), base)
    family, source = find_family(place, revision, hub)
    model = family.load(
        source,
        dtype=found_dtype,
        attn_implementation=attn_implementation,
        device_map=device_map,
        **of_model,
    ).requires_grad_(False)
    if str(base) in EMBEDDED_BASES:
        model.config.name_or_path = str(base)
    processor = load_processor(place, revision, hub, **of_processor)
    if adapter is not None:
        model = load_adapter(adapter, backbone_of(model), adapter_revision, hub)
    backbone = backbone_of(model)
    parts, prune = None, None
    if folder is not None:
        parts, prune = load_glimpse(folder, backbone)
        parts = parts.to(backbone.device, backbone.dtype)
    loaded = GlimpseModel(model, parts, prune, processor, compile_decode=compile_decode)
    loaded.backbone.fast_tower = fast_tower
    return loaded.eval()


def outline(settings: ModelConfig) -> Backbone:
    """The base of a config as far as its `config.json` tells it: all sizes, and no weights (they are on `meta`).

    Raises:
        OSError: no such base.
        ValueError: no adapter for its family.
    """
    place = EMBEDDED_BASES.get(settings.base, settings.base)
    family, source = find_family(place, settings.revision)
    return backbone_of(family.outline(source))


def load_base(config: TrainConfig) -> GlimpseModel:
    """Loads base, adapter, processor and pruning options of a config (sections `model` and `prune`), no glimpse."""
    settings = config.model
    model = from_pretrained(
        settings.base,
        adapter=settings.adapter,
        adapter_revision=settings.adapter_revision,
        revision=settings.revision,
        dtype=getattr(torch, settings.dtype),
        attn_implementation=settings.attn_implementation,
        fast_tower=settings.fast_tower,
        device_map=settings.device_map,
        **quantized(settings.quantization, settings.dtype),
        **processor_options(config),
    )
    model.options = prune_options(config)
    return model


def load_plus(config: PlusConfig) -> GlimpseModel:
    """The base of a config with a fresh adapter to be trained, which is all that requires gradients.

    What the folder of its glimpse, if it names one, says of layers and sizes is written into the config.
    """
    model = load_base(config)
    settings, backbone = config.adapter, model.backbone
    model.base = new_adapter(backbone, settings.rank, settings.alpha).eval()
    if config.grpo.glimpse is not None:
        parts, _ = load_glimpse(config.grpo.glimpse, backbone, config.grpo.glimpse_revision)
        model.glimpse = parts.to(backbone.device, backbone.dtype).requires_grad_(False)
        config.glimpse, config.vip = model.glimpse.configs
    return model


def load_gate(config: GateRunConfig) -> GlimpseModel:
    """The base of a config and its glimpse, with an untrained gate, which is all that requires gradients.

    What the folder of the glimpse says of layers and sizes is written into the config.
    """
    model = load_base(config)
    backbone = model.backbone
    parts, _ = load_glimpse(config.gate.glimpse, backbone)
    parts.gate = None  # of an earlier training: this one begins anew
    parts.requires_grad_(False)
    parts.gate = Gate(backbone.hidden_size, backbone.norm_eps)
    model.glimpse = parts.to(backbone.device)
    config.glimpse, config.vip = parts.configs
    return model


def _given(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: options[name] for name in names if options.get(name) is not None}


def _refuse(options: Mapping[str, Any]) -> None:
    """Refuses what nobody takes: transformers would drop such an option without a word."""
    known = (*OWN, *OF_HUB, *OF_MODEL, *OF_PROCESSOR, "torch_dtype")
    for name, value in options.items():
        if name in INSTEAD and value:
            raise ValueError(f"from_pretrained: {name}={value!r} is not taken; {INSTEAD[name]}")
        if name not in known and name not in INSTEAD:
            raise ValueError(
                f"from_pretrained: unknown option {name}={value!r}; the nearest known one is {nearest(name, known)!r}"
            )


def _check_types(base: Any, switches: Mapping[str, Any]) -> None:
    if not isinstance(base, str | Path):
        raise TypeError(
            f"from_pretrained: base must be a hub id or a folder, got {type(base).__name__}; a model that is loaded "
            "already goes into gp.prune"
        )
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise TypeError(f"from_pretrained: {name} must be True or False, got {value!r}")


def _check_limits(low: Any, high: Any) -> None:
    for name, value in (("min_pixels", low), ("max_pixels", high)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"from_pretrained: {name} must be a whole number, 1 or more, got {value!r}")
    if low is not None and high is not None and low > high:
        raise ValueError(f"from_pretrained: min_pixels {low} is more than max_pixels {high}")


def _dtype(dtype: Any, torch_dtype: Any) -> str | torch.dtype:
    """The dtype under either of its names.

    Raises:
        ValueError: not the name of a floating dtype, or two different ones.
    """
    given = [_one_dtype(value) for value in (dtype, torch_dtype) if value is not None]
    if len(set(given)) > 1:
        raise ValueError(f"from_pretrained: dtype={dtype!r} and torch_dtype={torch_dtype!r} differ; give one of them")
    return given[0] if given else "auto"


def _one_dtype(value: Any) -> str | torch.dtype:
    found = getattr(torch, value, None) if isinstance(value, str) and value != "auto" else value
    if found == "auto" or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise ValueError(f'from_pretrained: dtype must be "auto" or one like "bfloat16", got {value!r}')


def _need_accelerate(device_map: Any) -> None:
    if find_spec("accelerate") is None:
        raise ValueError(
            f"from_pretrained: device_map={device_map!r} needs accelerate, which is not installed: "
            "pip install accelerate (the extra `accelerate` of this package), or leave device_map out and call "
            "model.to(device)"
        )
