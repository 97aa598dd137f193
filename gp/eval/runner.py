"""One pass over one split: prune, answer greedily, count, and write each batch's results at once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from gp.data.batch import Batch
from gp.engine.generation import GREEDY
from gp.engine.prefill import Prefill, crop_counts
from gp.eval.plan import OWN_GLIMPSE, Method, options_of
from gp.eval.results import Result, append_results, drop_half_line, read_results, result_path
from gp.measure.stopwatch import Stopwatch
from gp.metrics import calibration_counts, exact_match
from gp.metrics.mask import mask_counts
from gp.model import GlimpseModel
from gp.pruners import OraclePruner
from gp.types import ImageFeatures


class SplitRun:
    """Answers of this process to one split, batch by batch, written at once; a killed run goes on where it stopped.

    If it stopped between two methods of a batch, that batch is run again for the methods that lack it. Processes share
    the folder, each writes files of its own. Make it in all of them before one answers: they deal out what is left, so
    they must see the same samples done.

    Args:
        model: in eval mode, on its device.
        split: for the file names.
        methods: the rows, those that others are matched to first.
        folder: of the results.
        max_new_tokens: of each answer.
        seed: of methods that draw; each prompt's draw depends on it and on the sample's id only.
        rank: of this process, 0 .. world - 1.
        world: number of processes.
        advance: called with a row and the number of its samples just finished.

    Attributes:
        finished: ids of the samples that all rows had when it was made, in order.
        current: the row that is or was last at work.
    """

    def __init__(
        self,
        model: GlimpseModel,
        split: str,
        methods: Sequence[Method],
        folder: Path,
        *,
        max_new_tokens: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        advance: Callable[[Method, int], None] = lambda method, count: None,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.model, self.split, self.methods, self.folder = model, split, list(methods), folder
        self.max_new_tokens, self.seed, self.advance = max_new_tokens, seed, advance
        self.paths = {method: result_path(folder, split, method, rank, world) for method in methods}
        for path in self.paths.values():
            drop_half_line(path)
        self.done = self.results()
        self.finished = sorted(set.intersection(*(set(row) for row in self.done.values())))
        self._finished = frozenset(self.finished)
        self.current: Method | None = None

    def results(self) -> dict[Method, dict[str, Result]]:
        """All results that all processes have written: row -> id -> result."""
        return {method: read_results(self.folder, self.split, method) for method in self.methods}

    def finished_numbers(self) -> set[int]:
        """Numbers of the samples of `finished`."""
        return {self.done[self.methods[0]][key].number for key in self.finished}

    def results_of(self, ids: Sequence[str]) -> dict[Method, list[Result]]:
        """Results of every row for samples that all rows have, in the order of the ids."""
        return {method: [self.done[method][key] for key in ids] for method in self.methods}

    def answer(self, batch: Batch) -> dict[Method, list[Result]]:
        """Answers what is not answered yet; the vision tower sees the batch once for all methods.

        Returns:
            Results of every row for the samples of the batch that are not among `finished`.
        """
        model = self.model
        ids = [sample.id for sample in batch.samples]
        todo = [method for method in self.methods if not set(ids) <= self.done[method].keys()]
        batch = batch.to(model.backbone.device)
        inputs = batch.inputs_for(model.backbone)  # normalised before the clock starts
        watch = Stopwatch(model.backbone.device)
        shared = [m.pruner for m in todo if not model.find_pruner(m.pruner).sees_own_images]
        images = model.see(inputs, shared) if shared else None
        vision_s = watch.lap()
        for method in todo:
            self.current = method
            kept = self.done.get(OWN_GLIMPSE, {})
            num_keep = {key: kept[key].num_kept for key in ids if key in kept}
            results = answer_batch(model, batch, method, self.max_new_tokens, self.seed, num_keep, images, vision_s)
            new = [result for result in results if result.id not in self.done[method]]
            append_results(self.paths[method], new)
            self.done[method] |= {result.id: result for result in new}
            self.advance(method, len(new))
        return self.results_of([key for key in ids if key not in self._finished])

    def describe(self, batch: Batch) -> str:
        """What is at work, for errors."""
        row, ids = (self.current or self.methods[0]).label, [sample.id for sample in batch.samples]
        return f"evaluation of split {self.split}: row {row}, questions {ids[0]} to {ids[-1]}"


def kept_by_id(results: Mapping[str, Result]) -> dict[str, int]:
    """Tokens that a row kept of each sample."""
    return {key: result.num_kept for key, result in results.items()}


def answer_batch(
    model: GlimpseModel,
    batch: Batch,
    method: Method,
    max_new_tokens: int,
    seed: int = 0,
    num_keep: Mapping[str, int] | None = None,
    images: ImageFeatures | None = None,
    vision_s: float = 0.0,
) -> list[Result]:
    """Answers a batch: one `Result` per sample.

    Args:
        num_keep: for a matched method: tokens to keep of each sample, by id.
        images: seen before, in `vision_s` seconds; None: this prefill sees them itself, as does one of a method that
            changes the images.
    """
    sees_own = model.find_pruner(method.pruner).sees_own_images
    watch = Stopwatch(model.backbone.device)
    done = prefill_batch(model, batch, method, seed, num_keep, images)
    prefill_s = watch.lap() + (0.0 if sees_own else vision_s)
    kv_kept = kv_entries(done)
    visual_run, visual_cached = visual_means(done)
    watch.lap()
    prompt_ids = batch.sent["input_ids"]
    output_ids = model.decode(prompt_ids, done, consume=True, max_new_tokens=max_new_tokens, **GREEDY)
    decode_s = watch.lap()
    new_ids = output_ids[:, prompt_ids.shape[1] :]
    texts = model.processor.batch_decode(new_ids, skip_special_tokens=True)
    num_new = num_new_tokens(new_ids, model.base.generation_config.eos_token_id)
    counts, num_kept = evidence_counts(done, batch.evidence_masks), done.num_kept
    again = crop_counts(done, batch.evidence_masks) if model.find_pruner(method.pruner).looks_closer else None
    calibrations = importance_counts(done, batch.evidence_masks) if method == OWN_GLIMPSE else [None] * len(batch)
    results = []
    for row, (sample, text, (tp, fp, fn)) in enumerate(zip(batch.samples, texts, counts, strict=True)):
        result = Result(
            id=sample.id,
            number=sample.number,
            dataset=sample.dataset,
            source_id=sample.source_id,
            image_name=sample.image_name,
            question=sample.question,
            answer=sample.answer,
            prediction=text.strip(),
            num_new_tokens=num_new[row],
            correct=exact_match(text, sample.answer),
            num_visual=done.full_layout.prompt_sizes[row],
            num_kept=num_kept[row],
            visual_run=visual_run[row],
            visual_cached=visual_cached[row],
            tp=tp,
            fp=fp,
            fn=fn,
            kv_kept=kv_kept[row],
            kv_full=int(done.full_length[row]),
            prefill_s=round(prefill_s / len(batch), 6),
            decode_s=round(decode_s / len(batch), 6),
            num_images=done.full_layout.rows.count(row),
            num_crops=again[row][0] if again else None,
            num_encoded=done.layout.prompt_sizes[row],
            in_crops=again[row][1] if again else None,
            calibration=calibrations[row],
        )
        results.append(result)
    return results


def num_new_tokens(new_ids: Tensor, ends: int | list[int] | None) -> list[int]:
    """Tokens of each answer up to and including the one that ends it; int [B, A] -> B numbers.

    Args:
        new_ids: generated tokens, with anything behind the end.
        ends: tokens that end an answer.
    """
    ending = torch.isin(new_ids, torch.tensor([] if ends is None else ends, device=new_ids.device, dtype=new_ids.dtype))
    return (ending.cumsum(1) - ending.long() == 0).sum(1).tolist()


def prefill_batch(
    model: GlimpseModel,
    batch: Batch,
    method: Method,
    seed: int = 0,
    num_keep: Mapping[str, int] | None = None,
    images: ImageFeatures | None = None,
) -> Prefill:
    """The pruned prompts of a batch; only `oracle` is shown the evidence."""
    wanted = [num_keep[sample.id] for sample in batch.samples] if method.matched else None
    return model.prefill(
        batch.inputs_for(model.backbone),
        method.pruner,
        options_of(method, model.options, wanted),
        evidence_masks=batch.evidence_masks if method.pruner == OraclePruner.name else None,
        seed=[zlib.crc32(f"{seed} {sample.id}".encode()) for sample in batch.samples],
        images=images,
        originals=pictures_of(batch) if model.backbone.one_image_size else None,
    )


def pictures_of(batch: Batch) -> list[Image] | None:
    """The pictures of a batch, in order; None where they are not kept."""
    pictures = [sample.image for sample in batch.samples if sample.image is not None]
    return pictures if len(pictures) == len(batch) else None


def kv_entries(done: Prefill) -> list[float]:
    """Entries in the KV cache of each prompt, without padding, mean over the layers."""
    per_layer = torch.stack([mask.sum(1) for mask in done.cache_masks])  # [layers, B]
    return per_layer.double().mean(0).tolist()


def visual_means(done: Prefill) -> tuple[list[float], list[float]]:
    """Visual tokens of each prompt that the prefill worked on, and in its KV cache, mean over the layers."""
    num_layers = len(done.cache_masks)
    of_tokens = (done.layers_run, done.layers_cached)
    run, cached = ([float(part.sum()) for part in done.layout.split_by_prompt(layers)] for layers in of_tokens)
    return [total / num_layers for total in run], [total / num_layers for total in cached]


def evidence_counts(done: Prefill, evidence_masks: Iterable[Tensor]) -> list[tuple[int, int, int]]:
    """Visual tokens of each prompt kept inside its evidence, kept outside it, and dropped inside it."""
    layout, keep_mask = done.layout, done.keep_mask
    if done.crops:  # some of the image is seen at two resolutions
        layout, keep_mask = done.full_layout, torch.cat([mask.flatten() for mask in done.seen_masks])
    pairs = zip(evidence_masks, layout.grids, strict=True)
    evidence = torch.cat([on_grid(mask, grid).flatten() for mask, grid in pairs]).to(keep_mask.device)
    of_prompts = zip(layout.split_by_prompt(keep_mask), layout.split_by_prompt(evidence), strict=True)
    return [tuple(mask_counts(keep, wanted).tolist()) for keep, wanted in of_prompts]


def importance_counts(done: Prefill, evidence_masks: Iterable[Tensor]) -> list[list[list[int]]]:
    """`calibration_counts` of the importance of each prompt's visual tokens, which `glimpse` has as logits."""
    assert done.importance_logits is not None  # glimpse has scored
    layout, importance = done.layout, done.importance_logits.float().sigmoid()
    evidence = torch.cat([mask.flatten() for mask in evidence_masks]).to(importance.device)
    pairs = zip(layout.split_by_prompt(importance), layout.split_by_prompt(evidence), strict=True)
    return [calibration_counts(predicted, wanted).tolist() for predicted, wanted in pairs]


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """An evidence mask on the grid of a smaller image: True where any part of a token is; bool [h, w] -> `grid`."""
    if tuple(mask.shape) == grid:
        return mask
    return torch.nn.functional.adaptive_max_pool2d(mask.float()[None], grid)[0].bool()
