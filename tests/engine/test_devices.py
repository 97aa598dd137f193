"""Bases whose layers are on several devices, or offloaded: the same numbers, and nothing is mixed.

There is one real device here, so the several ones are pretended (`tests.support.pretend_devices`): real numbers, and an
error wherever CUDA would raise one. Offloading is accelerate's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import Tensor, nn

from gp.engine import suffix
from gp.engine.answer_logprobs import answer_logprobs, pruned_prefix
from gp.engine.conversation import Conversation
from gp.engine.teacher_forcing import teacher_forced
from gp.eval.settings import norms_hash
from gp.formats.facts import is_outline
from gp.model import GlimpseModel
from gp.pruners import BASELINES
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.pretend_devices import PretendDevices, checkpoint_in_mode, smallest_parts, spread
from tests.support.tiny_models import FAMILIES, Family, random_masks, tiny_answers

LAYERS = 6
RAGGED = [([(4, 6)], 9), ([(2, 3), (6, 4)], 7), ([], 5)]
OPTIONS = PruneOptions(fixed_keep_ratio=0.6)
METHODS = [None, *BASELINES, "zoom"]
PLACES = ["pretend", *(pytest.param(place, marks=pytest.mark.slow) for place in ("cpu", "disk"))]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@contextmanager
def placed(family: Family, place: str, folder: Any = None) -> Iterator[GlimpseModel]:
    """A model whose base is spread over three pretend devices, or offloaded to the CPU or the disk."""
    base = family.make(layers=LAYERS)
    if place == "plain":
        yield micro_glimpse(base, prune_layer=2)
    elif place == "cpu":
        yield micro_glimpse(cpu_offload(base, torch.device("cpu")), prune_layer=2)
    elif place == "disk":
        yield micro_glimpse(disk_offload(base, str(folder), torch.device("cpu")), prune_layer=2)
    else:
        with spread(base, three_devices(base)):
            model = micro_glimpse(base, prune_layer=2)
            assert model.device == torch.device("cuda", 0)
            model.glimpse.to(model.device)
            yield model


def three_devices(model: nn.Module) -> dict[str, int]:
    """Layers in turn on three devices: embeddings on 0, the tower's frame on 1, head on 2."""
    places = {}
    for number, name in enumerate(smallest_parts(model)):
        in_tower = "visual" in name or "vision_tower" in name or "projector" in name
        is_layer = "blocks." in name or "layers." in name
        places[name] = number % 3 if is_layer else (1 if in_tower else 2 if "lm_head" in name or "norm" in name else 0)
    return places


def on_cpu(values: list[Tensor | None]) -> list[Tensor | None]:
    """Copies that no device knows of."""
    return [None if value is None else value.detach().clone() for value in values]


def check(family: Family, place: str, folder: Any, run: Callable[[GlimpseModel], list[Tensor | None]]) -> None:
    """Runs the same on a plain base and on a placed one: tokens and masks are equal, numbers to 1e-5 of the largest.

    Not to the last bit on pretend devices: the predictor calls another kernel on CUDA than on the CPU.
    """
    with placed(family, "plain") as model:
        wanted = on_cpu(run(model))
    with placed(family, place, folder) as model:
        found = on_cpu(run(model))
    assert [value is None for value in found] == [value is None for value in wanted]
    for one, other in zip(found, wanted):
        if one is not None:
            scale = max(1.0, float(other.double().nan_to_num(0.0, 0.0, 0.0).abs().max()))
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * scale, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", PLACES)
def test_every_method_prefills(family, place, method, tmp_path):
    inputs = family.inputs(family.fit(RAGGED))
    grids = [grid for images, _ in family.fit(RAGGED) for grid in images]
    evidence = random_masks(grids) if method == "oracle" else None

    def run(model: GlimpseModel) -> list[Tensor | None]:
        done = model.prefill(inputs, method, OPTIONS, evidence)
        return [done.logits, done.keep_mask, done.importance_logits, done.layers_cached]

    check(family, place, tmp_path, run)


@pytest.mark.parametrize("method", [None, "fastv", "zoom"])  # one of them with layers that hold different numbers
@pytest.mark.parametrize("place", PLACES)
def test_generation(family, place, method, tmp_path):
    inputs = family.inputs(family.fit(RAGGED))

    def run(model: GlimpseModel) -> list[Tensor | None]:
        how = {"pruner": method, "options": OPTIONS, "max_new_tokens": 4}
        return [model.generate(**inputs, **how), model.generate(**inputs, **how, num_beams=2)]

    check(family, place, tmp_path, run)


@pytest.mark.parametrize("place", PLACES)
def test_forward_with_labels(family, place, tmp_path):
    inputs = family.inputs(family.fit(RAGGED))
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100

    def run(model: GlimpseModel) -> list[Tensor | None]:
        plain = model(**inputs, labels=labels, options=OPTIONS)
        ragged = model(**inputs, labels=labels, options=OPTIONS, pruner="fastv")
        return [plain.loss, plain.logits, ragged.loss, ragged.logits]

    check(family, place, tmp_path, run)


@pytest.mark.parametrize("method", [None, "fastv", "visionzip"])
@pytest.mark.parametrize("place", PLACES)
def test_a_conversation(family, place, method, tmp_path):
    first = family.inputs(family.fit([([(4, 6)], 9)]))
    more = torch.randint(1, 50, (1, 5), generator=torch.Generator().manual_seed(3))
    second = {**first, "input_ids": torch.cat([first["input_ids"], more], 1)}
    second["attention_mask"] = torch.ones_like(second["input_ids"])

    def run(model: GlimpseModel) -> list[Tensor | None]:
        talk = Conversation(model.backbone, model.find_pruner(method))
        return [turn.logits for turn in (talk.turn(first, OPTIONS), talk.turn(second, OPTIONS))]

    check(family, place, tmp_path, run)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("log_softmax", [False, True])
def test_training_has_the_same_gradients(family, place, log_softmax, tmp_path, monkeypatch):
    monkeypatch.setattr(suffix, "checkpoint", checkpoint_in_mode)
    inputs = family.inputs(family.fit(RAGGED[:2]))
    ids, mask = tiny_answers([3, 2])

    def run(model: GlimpseModel) -> list[Tensor | None]:
        model.glimpse.log_softmax = log_softmax
        home = model.device
        forced = teacher_forced(model.backbone, model.glimpse, inputs, ids.to(home), mask.to(home))
        loss = forced.importance_logits[-1].square().mean() + forced.answer_logits.square().mean()
        loss.backward()
        return [forced.answer_logits, *(p.grad for p in model.glimpse.parameters())]

    check(family, place, tmp_path, run)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("gradients", [False, True])
def test_log_probabilities_of_answers(family, place, gradients, tmp_path):
    inputs = family.inputs(family.fit(RAGGED[:2]))
    masks = random_masks([grid for images, _ in family.fit(RAGGED[:2]) for grid in images])
    ids, mask = tiny_answers([3, 2, 3, 1])

    def run(model: GlimpseModel) -> list[Tensor | None]:
        home = model.device
        prefix = pruned_prefix(model.backbone, inputs, [m.to(home) for m in masks], 2, gradients=gradients)
        found = answer_logprobs(model.backbone, prefix, ids.to(home), mask.to(home))
        return [found.log_probs, found.entropy]

    check(family, place, tmp_path, run)


def test_what_is_pretended_is_refused_as_cuda_refuses_it():
    with PretendDevices():
        one, other = torch.ones(3, device="cuda:0"), torch.ones(3, device="cuda:1")
        assert (one + one).device == torch.device("cuda", 0) and one.new_zeros(2).device == one.device
        assert (one + torch.tensor(2.0)).sum().to("cuda:1").device == other.device
        for mixed in (lambda: one + other, lambda: one * torch.ones(3), lambda: one[other.long()]):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        assert one[torch.tensor([0, 2])].device == one.device  # an index of the host
    assert one.device == torch.device("cpu")


def test_a_placed_base_stays_where_it_is_and_the_trained_parts_move():
    """Lightning and callers move a whole model; weights that accelerate has offloaded cannot be moved."""
    model = micro_glimpse(cpu_offload(FAMILIES["llava"].make(), torch.device("cpu")))
    model.to("cpu").to(torch.float64)
    assert {weight.dtype for weight in model.glimpse.parameters()} == {torch.float64}
    assert {weight.dtype for weight in model.base.parameters()} == {torch.float32}
    assert all(weight.is_meta for weight in model.base.parameters())
    assert model.device == torch.device("cpu") and not is_outline(model.backbone)
    assert norms_hash(model.base) == norms_hash(FAMILIES["llava"].make())
