"""Tensors of one batch, made of its samples: prompts, answers and evidence masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from gp.boxes import WHOLE_IMAGE, Frame, boxes_in_frame, evidence_mask, normalize_boxes
from gp.data.pixels import PixelTable
from gp.data.position import Position
from gp.data.sample import Sample

INLINE_BYTES = 2**16  # tensors up to this size travel inside the message between processes
MARKER = "\u2603"  # a text that no chat template contains


class TakesFrames(Protocol):
    """A base; see `gp.backbones.Family.takes_one_frame`."""

    @property
    def takes_one_frame(self) -> bool: ...


class Batch:
    """B samples, ready for the model. Not a dataclass: Lightning takes those apart to convert every tensor in them.

    Args:
        sent: the prompts up to and including the assistant header, left padded: `input_ids` and `attention_mask`
            int64 [B, L], `pixel_values`, and what else the family has (Qwen: `image_grid_thw` int64 [B, 3], in
            patches).
        answer_ids: int64 [B, A], answer tokens and the token that ends a turn, right padded.
        answer_mask: bool [B, A], False on padding.
        evidence_masks: one bool [h, w] per image, on the grid of merged tokens.
        samples: one per row, without their images in training.
        position: in training, of the worker's stream after this batch.
        frames: what the grid of visual tokens of each image lies over, as fractions of the image; None: all of it.
        pixel_table: `pixel_values` are levels (uint8) that it turns into the processor's; None: they are these.
        counts: of the optimizer step that the batch is a part of, on this process; None: it is all of it.
    """

    def __init__(
        self,
        sent: dict[str, Tensor],
        answer_ids: Tensor,
        answer_mask: Tensor,
        evidence_masks: list[Tensor],
        samples: list[Sample],
        position: Position | None = None,
        frames: list[Frame] | None = None,
        pixel_table: PixelTable | None = None,
        counts: StepCounts | None = None,
    ):
        self.sent = sent
        self.answer_ids = answer_ids
        self.answer_mask = answer_mask
        self.evidence_masks = evidence_masks
        self.samples = samples
        self.position = position
        self.frames = frames if frames is not None else [WHOLE_IMAGE] * len(evidence_masks)
        self.pixel_table = pixel_table
        self.counts = counts

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Processor output of the prompts: `sent` with the image processor's own `pixel_values`.

        Computed when first asked for, on the device where the batch is by then.
        """
        if self.pixel_table is None:
            return self.sent
        return {**self.sent, "pixel_values": self.pixel_table(self.sent["pixel_values"])}

    @cached_property
    def one_frame(self) -> dict[str, Tensor]:
        """The same with each image's repeated frames once, for a base that takes them so (`Family.takes_one_frame`)."""
        if self.pixel_table is None or self.pixel_table.frames == 1:
            return self.inputs
        return {**self.sent, "pixel_values": replace(self.pixel_table, frames=1)(self.sent["pixel_values"])}

    def inputs_for(self, backbone: TakesFrames) -> dict[str, Tensor]:
        """The prompts as a base takes them soonest: `one_frame` if it can, else `inputs`."""
        return self.one_frame if backbone.takes_one_frame else self.inputs

    def __len__(self) -> int:
        """B."""
        return len(self.samples)

    def to(self, device: torch.device | str) -> Batch:
        """A copy with all tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory; torch's DataLoader calls it."""
        return self._each(Tensor.pin_memory)

    def __getstate__(self) -> dict[str, Any]:
        """Prepares the way between processes: torch opens a file for each tensor, so small ones go as arrays."""
        return vars(self._each(lambda x: x.numpy() if x.device.type == "cpu" and x.nbytes <= INLINE_BYTES else x))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        vars(self).update(vars(self._each(torch.as_tensor)))

    def _each(self, change: Callable[[Any], Any]) -> Batch:
        table = self.pixel_table
        return Batch(
            {name: change(tensor) for name, tensor in self.sent.items()},
            change(self.answer_ids),
            change(self.answer_mask),
            [change(mask) for mask in self.evidence_masks],
            self.samples,
            self.position,
            self.frames,
            None if table is None else replace(table, values=change(table.values)),
            self.counts,
        )


@dataclass(frozen=True)
class StepCounts:
    """Contents of one process's share of an optimizer step.

    Args:
        num_images: images of all its micro-batches.
        num_answer_tokens: answer tokens of all its micro-batches.
    """

    num_images: int
    num_answer_tokens: int

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> StepCounts:
        """Adds up micro-batches, which must still be in host memory: counting would make a GPU wait."""
        counts = [(len(batch.evidence_masks), int(batch.answer_mask.sum())) for batch in batches]
        return cls(*(sum(numbers) for numbers in zip(*counts, strict=True)))


class Collator:
    """Turns samples into a `Batch`.

    Args:
        processor: of the base model, from `gp.backbones.processor.load_processor`.
        min_pixels: images are enlarged to at least this area; None: the processor's own setting.
        max_pixels: images are reduced to at most this area; None: the processor's own setting.
        suffix: put behind each question, as it is.

    Raises:
        ValueError: the chat template has no token that ends a turn, or limits for images of one fixed size.
    """

    def __init__(self, processor: Any, min_pixels: int | None = None, max_pixels: int | None = None, suffix: str = ""):
        self.processor = processor
        self.suffix = suffix
        self.end_id = end_of_turn_id(processor)
        self.markers = processor.markers()
        self.pixel_table = PixelTable.from_processor(processor)
        given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self.pixels = {name: area for name, area in given.items() if area is not None}
        self.pixel_limits = processor.pixel_limits(min_pixels, max_pixels) if self.pixels else {}

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Tokenises prompts and answers, prepares the images and draws the evidence masks."""
        inputs = dict(
            self.processor.apply_chat_template(
                [question_messages(sample, self.suffix) for sample in samples],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={
                    "padding": True,
                    "padding_side": "left",
                    "images_kwargs": {**self.pixel_limits, **self.processor.levels_only},
                },
            )
        )
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.uint8)  # Qwen's Pillow class makes floats of them
        answer_ids, answer_mask = self.answers([sample.answer for sample in samples])
        grids = self.processor.grids(inputs)
        frames = [self.processor.frame(*sample.image.size) for sample in samples]
        masks = [
            sample_evidence(sample, height, width, frame)
            for sample, (height, width), frame in zip(samples, grids, frames, strict=True)
        ]
        return Batch(inputs, answer_ids, answer_mask, masks, list(samples), None, frames, self.pixel_table)

    def answers(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Answers as the assistant would write them, end token included: ids int64 [B, A] and mask bool [B, A]."""
        encode = self.processor.tokenizer
        rows = [torch.tensor([*encode(text, add_special_tokens=False)["input_ids"], self.end_id]) for text in texts]
        pad = encode.pad_token_id if encode.pad_token_id is not None else self.end_id
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(ids.shape[1]) < lengths[:, None]

    def num_visual_tokens(self, width: int, height: int) -> int:
        """Number of visual tokens that an image of so many pixels will have; needs no image."""
        sizes = self.processor._get_num_multimodal_tokens(image_sizes=[[height, width]], **self.pixels)
        return sizes.num_image_tokens[0]


def question_messages(sample: Sample, suffix: str = "") -> list[dict[str, Any]]:
    """The conversation up to the answer, in transformers' chat format: one user turn, image first."""
    content = [{"type": "image", "image": sample.image}, {"type": "text", "text": sample.question + suffix}]
    return [{"role": "user", "content": content}]


def sample_evidence(sample: Sample, height: int, width: int, frame: Frame = WHOLE_IMAGE) -> Tensor:
    """The evidence mask of a sample on a grid of height x width visual tokens over `frame`; bool [height, width]."""
    boxes_xyxy_norm = normalize_boxes(sample.boxes_xyxy_px, sample.width, sample.height)
    return evidence_mask(boxes_in_frame(boxes_xyxy_norm, frame), height, width)


def end_of_turn_id(processor: Any) -> int:
    """The token that the chat template writes right after an assistant's text (`<|im_end|>` for Qwen).

    Found by rendering a turn; a template that writes nothing there leaves it to the tokenizer's end of sequence.
    """
    turns = [("user", "?"), ("assistant", MARKER)]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    after = processor.apply_chat_template(messages, tokenize=False).rpartition(MARKER)[2]
    ids = processor.tokenizer(after.strip(), add_special_tokens=False)["input_ids"] if after.strip() else []
    end_id = ids[0] if ids else processor.tokenizer.eos_token_id
    if end_id is None:
        raise ValueError("neither the chat template nor the tokenizer has a token that ends an assistant's turn")
    return end_id
