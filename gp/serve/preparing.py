"""From a request to what a batch is made of: tensors of one prompt, its method and options, whom it may stand with."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gp import calls
from gp.asking import conversation_inputs, picture_entry, refuse_markers
from gp.config.fitting import nearest
from gp.model import GlimpseModel
from gp.pictures import read_picture
from gp.pruners import Pruner
from gp.serve.events import Job
from gp.serve.options import ServeConfig
from gp.serve.pictures import CODE
from gp.serve.refusing import Refused, bad
from gp.serve.request import ChatRequest, Message
from gp.types import PruneOptions


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request that can be answered.

    Args:
        job: the request.
        inputs: the processor's output, one row.
        method: that prunes.
        options: of the method.
        group: requests with the same value can be answered as one batch.
    """

    job: Job
    inputs: dict[str, Tensor]
    method: Pruner
    options: PruneOptions
    group: Hashable

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return self.inputs["input_ids"].shape[1]


def prepare(model: GlimpseModel, job: Job, config: ServeConfig) -> Prepared:
    """Decodes the pictures, writes the prompt, finds method and options.

    Raises:
        Refused: a picture that does not decode, a text that stands for an image, a prompt that is too long, a method
            or an option that there is not.
    """
    request = job.request
    name, method, options = choose(model, request, config)
    pictures = [decode(one, k) for k, one in enumerate(request.pictures)]
    texts = [part for message in request.messages for part in message.parts if isinstance(part, str)]
    _as_refusal("messages", refuse_markers, texts, model.backbone.processor.markers(model.processor))
    messages = [as_template_takes(message, pictures) for message in request.messages]
    inputs = _as_refusal("messages", conversation_inputs, model.processor, messages)
    inputs = calls.take_inputs(model.backbone, inputs, "serve")
    if (length := inputs["input_ids"].shape[1]) > config.limits.prompt_tokens:
        message = f"the prompt has {length} tokens, at most {config.limits.prompt_tokens} are taken"
        raise bad("messages", message, "context_length_exceeded")
    return Prepared(job, inputs, method, options, (name, *sampling(request, job)))


def choose(model: GlimpseModel, request: ChatRequest, config: ServeConfig) -> tuple[str, Pruner, PruneOptions]:
    """Method and options of a request, over those of the server, and a name for that method with these settings."""
    own = config.prune if request.pruner in (None, config.pruner) else {}
    given = {name: value for name, value in {**own, **request.pruning}.items() if value is not None}
    name = request.pruner or config.pruner
    settings = _as_refusal("pruner", calls.take_settings, name, given)
    options = _as_refusal(None, calls.take_options, model.options, None, given, 1)
    if given:
        known = [*PruneOptions.field_names(), calls.BUDGET, *settings_of(name), "pruner", "max_tokens", "temperature"]
        wrong = next(iter(given))
        raise bad(wrong, f"unknown key; the nearest known one is {nearest(wrong, known)!r}", "unknown_parameter")
    if isinstance(options, list):
        (options,) = options
    method = _as_refusal("pruner", model.find_pruner, name, settings)
    _as_refusal(None, method.check, options, model.backbone.num_layers)
    if method.name == "oracle":
        raise bad("pruner", "oracle needs evidence masks, which a request cannot give")
    return f"{name}{json.dumps(settings, sort_keys=True)}", method, options


def settings_of(name: str | None) -> list[str]:
    """Settings that a method takes; none for the model's own."""
    return calls.find_class(name).settings() if name else []


def sampling(request: ChatRequest, job: Job) -> tuple[Hashable, ...]:
    """What the requests of a batch must have in common; a drawing with a seed is never done together with others."""
    if request.temperature == 0:
        return (0.0,)
    return request.temperature, request.top_p, None if request.seed is None else job.number


def decode(picture: bytes | str, number: int) -> Image.Image:
    """A picture of a request, whose size its header has told; Refused if it does not decode."""
    assert isinstance(picture, bytes)  # addresses have been downloaded by now
    try:
        return read_picture(picture)
    except (ValueError, OSError) as error:
        raise bad(None, f"image {number}: {error}", CODE) from error


def as_template_takes(message: Message, pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """A message as the processor's chat template takes it."""
    parts = [{"type": "text", "text": p} if isinstance(p, str) else picture_entry(pictures[p]) for p in message.parts]
    return {"role": message.role, "content": parts}


def joined(rows: Sequence[Prepared], pad_token_id: int) -> dict[str, Tensor]:
    """The inputs of one batch: prompts padded on the left, pictures one behind the other.

    Args:
        rows: B prompts.
        pad_token_id: fills `input_ids`; what else goes along with them is filled with 0.
    """
    longest = max(row.length for row in rows)
    out = {}
    for name in {name: None for row in rows for name in row.inputs}:
        parts = [(row.inputs[name], row.length) for row in rows if name in row.inputs]
        if name == "input_ids" or all(part.shape[:2] == (1, length) for part, length in parts):
            filling = pad_token_id if name == "input_ids" else 0
            parts = [(torch.nn.functional.pad(one, (longest - n, 0), value=filling), n) for one, n in parts]
        out[name] = torch.cat([part for part, _ in parts])
    return out


def _as_refusal(param: str | None, work: Callable, *arguments: Any) -> Any:
    """What `work` returns; a mistake that it finds is one of the request."""
    try:
        return work(*arguments)
    except Refused:
        raise
    except (ValueError, TypeError) as error:
        raise bad(param, str(error)) from error
