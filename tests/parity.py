"""Checks this project against numbers of the original implementation, case folder by case folder.

    python tests/parity.py DIR

Every folder below DIR that holds a `case.json` is a case (layout: docs/parity.md). Prints one line per case and
quantity, a summary last, and ends non-zero on a mismatch or on a case that it could not run.

Ours are computed in float32, as the original's were. How two float32 programs round depends on the processor, so a
case with a mismatch is computed a second time in float64: a quantity that is then within the same tolerance differed
by our rounding alone, and its line says so. A fault of ours differs in both.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging

from gp.backbones import backbone_of
from gp.backbones.llava_original import from_original
from gp.engine.prefill import prefill
from gp.engine.teacher_forcing import teacher_forced
from gp.formats.glimpse_folder import load_glimpse
from gp.formats.published import vip_name
from gp.model import GlimpseModel
from gp.modules import answer_loss, bce_loss, dice_loss
from gp.pruners import OraclePruner

DICE_WEIGHT, BCE_WEIGHT = 1.0, 0.1  # of the published training configs
NEW_TOKENS = 8
PLACEHOLDER = -200  # an image in a prompt of the original LLaVA


@dataclass
class Check:
    """One compared quantity: the largest difference found, what is allowed, and what ours was computed in."""

    quantity: str
    difference: float
    tolerance: float
    dtype: torch.dtype = torch.float32

    @property
    def ok(self) -> bool:
        return self.difference <= self.tolerance  # NaN compares false: a mismatch

    def __str__(self) -> str:
        verdict = "ok" if self.ok else f"MISMATCH (allowed {self.tolerance:g})"
        computed = " in float64" if self.dtype == torch.float64 else ""
        return f"{self.quantity:24s} {self.difference:.3e} {verdict}{computed}"


@dataclass
class Case:
    """A case folder, read."""

    folder: Path
    info: dict
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]
    numbers: dict

    @classmethod
    def read(cls, folder: Path) -> Case:
        inputs = load_file(folder / "inputs.safetensors")
        inputs = {k: v.float() if v.dtype == torch.float16 else v for k, v in inputs.items()}
        return cls(
            folder,
            json.loads((folder / "case.json").read_text()),
            inputs,
            load_file(folder / "expected.safetensors"),
            json.loads((folder / "expected.json").read_text()),
        )

    def numbered(self, tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
        """`prefix.0`, `prefix.1`, ... in order."""
        found = sorted((int(k.rsplit(".", 1)[1]), v) for k, v in tensors.items() if k.startswith(f"{prefix}."))
        return [v for _, v in found]

    @property
    def evidence_masks(self) -> list[Tensor]:
        return self.numbered(self.inputs, "ref_token_mask")


def load_qwen(case: Case) -> GlimpseModel:
    """The stock class with the case's weights, and the trained parts as the original saved them."""
    config = Qwen2_5_VLConfig(**json.loads((case.folder / "base_config.json").read_text()))
    weights = load_file(case.folder / "base.safetensors")
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32
    )
    pruner, options = load_glimpse(case.folder / "modules", backbone_of(base))
    return GlimpseModel(base, pruner, options)


def load_llava(case: Case) -> GlimpseModel:
    """As `load_qwen`, from weights in the original LLaVA naming; turns the case's inputs into the stock processor's."""
    config = json.loads((case.folder / "base_config.json").read_text())
    vision = CLIPVisionModel.from_pretrained(case.folder / config["mm_vision_tower"], dtype=torch.float32)
    base = from_original(config, load_file(case.folder / "base.safetensors"), vision)
    pruner, options = load_glimpse(case.folder / "modules", backbone_of(base))
    model = GlimpseModel(base, pruner, options)
    case.inputs["pixel_values"] = case.inputs.pop("images")
    expand_images(case.inputs, base.config.image_token_id, base.config.image_seq_length)
    return model


def expand_images(inputs: dict[str, Tensor], image_token_id: int, tokens_per_image: int) -> None:
    """Writes every image placeholder (-200) as often as it has visual tokens, and pads on the left again."""
    wide = {key: [] for key in ("input_ids", "attention_mask", "labels") if key in inputs}
    for row, real in enumerate(inputs["attention_mask"].bool()):
        ids = inputs["input_ids"][row][real]
        repeats = torch.where(ids == PLACEHOLDER, tokens_per_image, 1)
        for key, rows in wide.items():
            rows.append(inputs[key][row][real].repeat_interleave(repeats))
    longest = max(map(len, wide["input_ids"]))
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    for key, rows in wide.items():
        padded = [torch.nn.functional.pad(r, (longest - len(r), 0), value=fill[key]) for r in rows]
        inputs[key] = torch.stack(padded)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == PLACEHOLDER, image_token_id)


LOADERS: dict[str, Callable[[Case], GlimpseModel]] = {"qwen2_5_vl": load_qwen, "llava_1_5": load_llava}


def check_case(folder: Path) -> list[Check]:
    """Runs one case and gives its comparisons, those that float32 mismatches from float64.

    Raises:
        ValueError: a family or kind that this program does not know.
    """
    checks = list(run_case(folder, torch.float32))
    if all(check.ok for check in checks):
        return checks
    again = {check.quantity: replace(check, dtype=torch.float64) for check in run_case(folder, torch.float64)}
    return [check if check.ok else again.get(check.quantity, check) for check in checks]


def run_case(folder: Path, dtype: torch.dtype) -> Iterator[Check]:
    """Runs one case in `dtype` and yields its comparisons.

    Raises:
        ValueError: a family or kind that this program does not know.
    """
    case = Case.read(folder)
    if case.info["family"] not in LOADERS:
        raise ValueError(f"no loader for family {case.info['family']!r}; there is one for {sorted(LOADERS)}")
    model = LOADERS[case.info["family"]](case).to(dtype)
    case.inputs["pixel_values"] = case.inputs["pixel_values"].to(dtype)
    checks = {"infer": check_inference, "train": check_training}
    if case.info["kind"] not in checks:
        raise ValueError(f"unknown kind {case.info['kind']!r}; expected one of {sorted(checks)}")
    yield from checks[case.info["kind"]](case, model)


def check_inference(case: Case, model: GlimpseModel) -> Iterator[Check]:
    """Scores, masks, logits, cache and greedy answers of a pruned prompt."""
    inputs = {k: case.inputs[k] for k in model.backbone.prompt_keys if k in case.inputs}
    given = case.info.get("use_ref_masks", False)
    pruner = OraclePruner(model.glimpse.prune_layer) if given else model.glimpse
    with torch.no_grad():
        done = prefill(
            model.backbone, inputs, pruner, model.options, case.evidence_masks if given else None, logits_to_keep=0
        )
    expected = case.expected
    scores = torch.cat([rows[-1] for rows in case.numbered(expected, "image_token_mask_logits")])
    yield Check("importance_logits", largest(done.importance_logits, scores), 1e-4)
    masks = torch.cat(case.numbered(expected, "image_token_bool_mask"))
    yield Check("keep_mask", unequal(done.keep_mask, masks), 0)
    real = expected["reduced_attention_mask"].bool()
    yield Check("pruned_attention_mask", unequal(done.attention_mask, real), 0)
    if done.attention_mask.shape != real.shape:
        return  # what follows cannot be laid side by side
    yield Check(
        "pruned_position_ids",
        unequal(done.position_ids[:, real], expected["reduced_position_ids"].view(-1, *real.shape)[:, real]),
        0,
    )
    yield Check("prefill_logits", largest(done.logits[real], expected["prefill_logits"][real]), 1e-3)
    for name, layer in (("first", 0), ("last", -1)):
        if f"cache_key.{name}_layer" not in expected:
            continue
        keys = done.cache.layers[layer].keys.transpose(1, 2)[real]
        yield Check(f"cache_key_{name}", largest(keys, expected[f"cache_key.{name}_layer"].transpose(1, 2)[real]), 1e-3)
    yield from check_generation(case, model, done)


def check_generation(case: Case, model: GlimpseModel, done) -> Iterator[Check]:
    """Greedy ids and logits; batches against rows decoded alone (the original's batched decoding is wrong)."""
    out = model.decode(
        case.inputs["input_ids"],
        done,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    kinds = ("rowwise_generated", "generated", "stepwise")  # of several, the first that is right for batches
    ids = next(case.expected[f"{k}_ids"] for k in kinds if f"{k}_ids" in case.expected)
    yield Check("greedy_ids", unequal(out.sequences[:, -NEW_TOKENS:], ids[:, -NEW_TOKENS:]), 0)
    logits = next(case.expected[f"{k}_logits"] for k in kinds if f"{k}_logits" in case.expected)
    yield Check("greedy_logits", largest(torch.stack(out.logits, 1), logits.view(ids.shape[0], NEW_TOKENS, -1)), 1e-3)


def check_training(case: Case, model: GlimpseModel) -> Iterator[Check]:
    """Losses, scores and the gradient of every trained parameter."""
    model.train()
    inputs, answer_ids, answer_mask = split_at_answer(case.inputs)
    out = teacher_forced(model.backbone, model.glimpse, inputs, answer_ids, answer_mask, normalize_over_answer=True)
    scores = torch.cat([rows[-1] for rows in case.numbered(case.expected, "image_token_mask_logits")])
    yield Check("importance_logits", largest(out.importance_logits[-1], scores), 1e-4)
    total, count = answer_loss(out.answer_logits, answer_ids, answer_mask)
    loss_answer = total / count
    loss_mask = sum(mask_loss(row, case.evidence_masks) for row in out.importance_logits)
    yield Check("loss_answer", abs(loss_answer.item() - case.numbers["le_loss"]), 1e-5)
    yield Check("loss_mask", abs(loss_mask.item() - case.numbers["loc_loss"]), 1e-5)
    (loss_answer + loss_mask).backward()
    parameters = dict(model.glimpse.named_parameters())
    worst = 0.0
    for key, norm in case.numbers["grad_norms"]["total"].items():
        gradient = parameters[parameter_name(key)].grad
        worst = max(worst, abs(gradient.norm().item() - norm) / norm if norm else gradient.norm().item())
    yield Check("grad_norms_relative", worst, 1e-4)


def parameter_name(theirs: str) -> str:
    """Translates the reference's full parameter name (`attn_fuser...`, `le_proj...`) into ours."""
    if theirs.startswith("attn_fuser."):
        return f"vip.{vip_name(theirs.removeprefix('attn_fuser.'), to_ours=True)}"
    for old, new in (("learnable_embeddings", "embeddings"), ("le_proj", "proj"), ("le_norm", "norm")):
        if theirs.startswith(old):
            return f"glimpse_token.{new}{theirs[len(old) :]}"
    raise ValueError(f"unknown parameter {theirs!r}")


def mask_loss(importance_logits: Tensor, evidence_masks: list[Tensor]) -> Tensor:
    rows = importance_logits.split([m.numel() for m in evidence_masks])
    pairs = [(row, mask.flatten()) for row, mask in zip(rows, evidence_masks)]
    losses = [DICE_WEIGHT * dice_loss(row, mask) + BCE_WEIGHT * bce_loss(row, mask) for row, mask in pairs]
    return sum(losses) / len(losses)


def split_at_answer(inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The case's prompt-with-answer rows -> left-padded prompts and right-padded answers."""
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    starts = (labels != -100).int().argmax(1).tolist()
    length, longest = ids.shape[1], max(starts)
    prompts = [torch.nn.functional.pad(row[:start], (longest - start, 0)) for row, start in zip(ids, starts)]
    masks = [torch.nn.functional.pad(row[:start], (longest - start, 0)) for row, start in zip(mask, starts)]
    tail = length - min(starts)
    answers = [torch.nn.functional.pad(row[start:], (0, tail - length + start)) for row, start in zip(ids, starts)]
    wanted = [
        torch.nn.functional.pad(row[start:] != -100, (0, tail - length + start)) for row, start in zip(labels, starts)
    ]
    rest = {k: v for k, v in inputs.items() if k in ("pixel_values", "image_grid_thw")}
    prompt = {"input_ids": torch.stack(prompts), "attention_mask": torch.stack(masks), **rest}
    return prompt, torch.stack(answers), torch.stack(wanted)


def largest(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; equal infinities differ by 0, a wrong shape by infinity."""
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.detach().double(), theirs.double()
    difference = torch.where(ours == theirs, torch.zeros_like(ours), (ours - theirs).abs())
    return difference.max().item() if difference.numel() else 0.0


def unequal(ours: Tensor, theirs: Tensor) -> float:
    """Number of unequal entries; a wrong shape counts as infinity."""
    return float((ours != theirs).sum()) if ours.shape == theirs.shape else float("inf")


def find_cases(root: Path) -> list[Path]:
    return sorted(p.parent for p in root.rglob("case.json"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with case folders")
    parser.add_argument("--traceback", action="store_true", help="show where a case that could not run failed")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folders = find_cases(options.folder)
    if not folders:
        print(f"{options.folder}: no case.json below it")
        return 2
    checked = mismatched = rounded = not_run = 0
    for folder in folders:
        try:
            for check in check_case(folder):
                checked += 1
                mismatched += not check.ok
                rounded += check.ok and check.dtype == torch.float64
                print(f"{folder.name:36s} {check}", flush=True)
        except Exception as error:  # one case that cannot run must not hide the others; it fails the whole below
            not_run += 1
            print(f"{folder.name:36s} NOT RUN: {type(error).__name__}: {error}", flush=True)
            if options.traceback:
                traceback.print_exc()
    if rounded:
        print(f"{rounded} quantities agree in float64 only: on this processor float32 rounds differently")
    print(f"{len(folders)} cases, {checked} quantities, {mismatched} mismatches, {not_run} cases not run")
    return 1 if mismatched or not_run else 0


if __name__ == "__main__":
    sys.exit(main())
