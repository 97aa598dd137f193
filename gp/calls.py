"""What the keywords of a call mean: the prompt, pruning options, transformers' own; what is refused, and why."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gp.backbones import VIDEO_KEYS, Backbone
from gp.backbones.layout import refuse_videos
from gp.config.fitting import nearest
from gp.pruners import Pruner, find_class
from gp.selection import Options
from gp.types import PruneOptions

WHOLE = "the prompt is prefilled and pruned as a whole"
SPECULATIVE = "speculative decoding would need the dropped tokens back"
SECOND_PASS = "it runs the model a second time, on a prompt that is not pruned"
OF_A_REPOSITORY = "transformers runs code of a repository for it"
REFUSED = {
    "assistant_model": SPECULATIVE,
    "assistant_tokenizer": SPECULATIVE,
    "assistant_early_exit": SPECULATIVE,
    "prompt_lookup_num_tokens": SPECULATIVE,
    "use_mtp": SPECULATIVE,
    "cache": WHOLE,
    "past_key_values": WHOLE,
    "prefill_chunk_size": WHOLE,
    "position_ids": "positions follow from input_ids, attention_mask and the images",
    "inputs_embeds": "pass input_ids and the processor's image tensors",
    "mm_encoder_outputs": "pass the processor's image tensors",
    "use_cache": "it lives in the cache",
    "cache_implementation": "continuous batching has a prefill of its own",
    "guidance_scale": SECOND_PASS,
    "negative_prompt_ids": SECOND_PASS,
    "token_healing": "it changes the prompt behind the prefill",
    "custom_generate": OF_A_REPOSITORY,
    "constraints": OF_A_REPOSITORY,
    "force_words_ids": OF_A_REPOSITORY,
    "num_beam_groups": OF_A_REPOSITORY,
    "penalty_alpha": OF_A_REPOSITORY,
    "dola_layers": OF_A_REPOSITORY,
}
HARMLESS = {  # values of the above under which nothing is asked for; None and False are for all others
    "use_cache": lambda value: value is None or value,
    "cache_implementation": lambda value: value != "paged",
    "guidance_scale": lambda value: value is None or value == 1,
    "custom_generate": lambda value: not isinstance(value, str),
    "num_beam_groups": lambda value: value is None or value == 1,
    "penalty_alpha": lambda value: not value,
}
OWN = ("pruner", "options", "evidence_masks", "seed")
BUDGET = "budget"  # evaluate.py's word for `fixed_keep_ratio`
OF_FORWARD = ("labels", "logits_to_keep", "return_dict", "use_cache", "num_items_in_batch")
OUTPUTS = ("output_attentions", "output_hidden_states")
OF_GENERATE = ("tokenizer",)  # what it takes without naming it in its signature
OF_DECODE = ("compile_decode",)  # our own, of every call that decodes


def take_inputs(backbone: Backbone, kwargs: dict[str, Any], where: str) -> dict[str, Tensor]:
    """Takes the tensors that describe the prompts out of `kwargs`.

    Raises:
        ValueError: no `input_ids` of shape [B, S], videos, or what is no tensor.
    """
    inputs = {name: kwargs.pop(name, None) for name in (*backbone.prompt_keys, *VIDEO_KEYS)}
    inputs = {name: value for name, value in inputs.items() if value is not None}
    refuse_videos(inputs)
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        found = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        hint = f": pass a processor's output as {where}(**inputs)" if isinstance(ids, Mapping) else ""
        raise ValueError(f"{where}: input_ids must be integers of shape [prompts, tokens], got {found}{hint}")
    if wrong := [name for name, value in inputs.items() if not isinstance(value, Tensor)]:
        found = type(inputs[wrong[0]]).__name__
        raise ValueError(f"{where}: {wrong[0]} must be a tensor, got {found}: let the processor return_tensors='pt'")
    return inputs


def take_options(default: PruneOptions, given: Options | None, kwargs: dict[str, Any], num_prompts: int) -> Options:
    """Takes pruning options out of `kwargs` and puts them over the call's, or the default ones.

    Args:
        default: of the model.
        given: the call's `options`.
        kwargs: single options by name; a list has one value per prompt, and so has a tensor or an array.
        num_prompts: B.

    Returns:
        Options of all prompts, or a list with one entry per prompt.

    Raises:
        TypeError: `options` that are none.
        ValueError: values out of range, or lists of another length.
    """
    chosen = default if given is None else given
    listed = chosen if _is_list(chosen) else [chosen]
    if not all(isinstance(one, PruneOptions) for one in listed):
        raise TypeError(f"options must be gp.PruneOptions, or a list with one per prompt, got {chosen!r}")
    names = [name for name in (*PruneOptions.field_names(), BUDGET) if name in kwargs]
    single = {name: _plain(kwargs.pop(name)) for name in names}
    if (budget := single.pop(BUDGET, None)) is not None:
        if single.get("fixed_keep_ratio") is not None:
            raise ValueError("budget and fixed_keep_ratio are two words for one thing: give one of them")
        single["fixed_keep_ratio"] = budget
    rows = {name: list(value) for name, value in single.items() if _has_one_per_prompt(name, value)}
    same = {name: value for name, value in single.items() if name not in rows}
    if not rows and isinstance(chosen, PruneOptions):
        return chosen.but(**same)
    if isinstance(same.get("num_keep"), Sequence):
        rows["num_keep"] = list(same.pop("num_keep"))
    each = [chosen] * num_prompts if isinstance(chosen, PruneOptions) else list(chosen)
    for name, values in {"options": each, **rows}.items():
        if len(values) != num_prompts:
            raise ValueError(f"{name} has {len(values)} entries for {num_prompts} prompts")
    return [one.but(**same, **{name: values[i] for name, values in rows.items()}) for i, one in enumerate(each)]


def take_settings(pruner: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Takes settings of the method that a call names out of `kwargs`; ValueError for a name that is no method's."""
    if not isinstance(pruner, str):
        return {}
    return {name: kwargs.pop(name) for name in find_class(pruner).settings() if name in kwargs}


def _has_one_per_prompt(name: str, value: Any) -> bool:
    """Whether a value is a list of values; `num_keep` and `anchors` are lists themselves."""
    if name == "num_keep":
        return _is_list(value) and any(one is None or _is_list(one) for one in value)
    if name == "anchors":
        return _is_list(value) and any(not isinstance(one, str) for one in value)
    return _is_list(value)


def _plain(value: Any) -> Any:
    """Numbers of a tensor or an array as Python has them."""
    return value.tolist() if hasattr(value, "tolist") else value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def refuse(backbone: Backbone, kwargs: Mapping[str, Any], pruner: Pruner | None = None) -> None:
    """Refuses what cannot work on a pruned prompt, wherever it is set, and what nobody knows.

    Args:
        backbone: of the base; its generation config counts, too.
        kwargs: of `generate`, without the prompt and pruning options.
        pruner: the call's, whose settings may be meant by a word that nobody knows.

    Raises:
        ValueError: names the option, its value, the reason, or the nearest known option.
    """
    base = backbone.model
    given = kwargs.get("generation_config")
    known = {*inspect.signature(base.generate).parameters, *OF_GENERATE, *OF_DECODE, *REFUSED}
    known |= {name for name in vars(base.generation_config) if not name.startswith("_")} - {"transformers_version"}
    if callable(kwargs.get("custom_generate")):
        known |= set(inspect.signature(kwargs["custom_generate"]).parameters)
    refuse_unknown("generate", backbone, kwargs, known - {"kwargs"}, pruner)
    for name, why in REFUSED.items():
        value, place = kwargs.get(name), ""
        if name not in kwargs:
            value = getattr(given, name, None)
            place = " in generation_config"
            if value is None:
                value = getattr(base.generation_config, name, None)
                place = " in the base's own generation_config"
        if not HARMLESS.get(name, lambda value: value is None or value is False)(value):
            raise ValueError(f"generate: {name}={_short(value)}{place} does not work on a pruned prompt: {why}")


def refuse_in_forward(backbone: Backbone, kwargs: Mapping[str, Any], pruner: Pruner | None = None) -> None:
    """Refuses what `forward` cannot do, or does not know; raises like `refuse`."""
    for name, why in {**REFUSED, **dict.fromkeys(OUTPUTS, "it gives logits only")}.items():
        if kwargs.get(name) is not None and kwargs[name] is not False:
            raise ValueError(f"forward: {name} does not work on a pruned prompt: {why}")
    refuse_unknown("forward", backbone, kwargs, {*OF_FORWARD, *OUTPUTS, *REFUSED}, pruner)


def refuse_unknown(
    where: str, backbone: Backbone, kwargs: Mapping[str, Any], known: set[str], pruner: Pruner | None = None
) -> None:
    """Raises ValueError for the first keyword that nobody knows, with the nearest one that somebody does."""
    for name, value in kwargs.items():
        if value is not None and name not in known:
            settings = pruner.settings() if pruner is not None else []
            every = sorted({*known, *backbone.prompt_keys, *PruneOptions.field_names(), *OWN, *settings, BUDGET})
            raise ValueError(f"{where}: unknown option {name!r}; the nearest known one is {nearest(name, every)!r}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
