"""From samples to the tensors of one batch: prompts, answers and evidence masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gp.boxes import WHOLE_IMAGE, Frame, boxes_in_frame, evidence_mask, normalize_boxes
from gp.data.cursor import Cursor
from gp.data.sample import Sample

MARKER = "\u2603"  # a text that no chat template contains


class Batch:
    """B samples, ready for the model. Not a dataclass: Lightning takes those apart to convert every tensor in them.

    Args:
        inputs: the prompts up to and including the assistant header, as the processor made them, left padded:
            `input_ids` and `attention_mask` int64 [B, L], `pixel_values` float32, and what else the family has
            (Qwen: `image_grid_thw` int64 [B, 3], in patches).
        answer_ids: int64 [B, A], answer tokens and the token that ends a turn, right padded.
        answer_mask: bool [B, A], False on padding.
        evidence_masks: one bool [h, w] an image, on the grid of merged tokens.
        samples: one a row, without their images in training.
        cursor: in training, where the worker's stream stands after this batch.
        frames: what the grid of visual tokens of each image lies over, as fractions of the image; None: all of it.
    """

    def __init__(
        self,
        inputs: dict[str, Tensor],
        answer_ids: Tensor,
        answer_mask: Tensor,
        evidence_masks: list[Tensor],
        samples: list[Sample],
        cursor: Cursor | None = None,
        frames: list[Frame] | None = None,
    ):
        self.inputs = inputs
        self.answer_ids = answer_ids
        self.answer_mask = answer_mask
        self.evidence_masks = evidence_masks
        self.samples = samples
        self.cursor = cursor
        self.frames = frames if frames is not None else [WHOLE_IMAGE] * len(evidence_masks)

    def __len__(self) -> int:
        """B."""
        return len(self.samples)

    def to(self, device: torch.device | str) -> Batch:
        """A copy with all tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory; torch's DataLoader calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change) -> Batch:
        return Batch(
            {name: change(tensor) for name, tensor in self.inputs.items()},
            change(self.answer_ids),
            change(self.answer_mask),
            [change(mask) for mask in self.evidence_masks],
            self.samples,
            self.cursor,
            self.frames,
        )


class Collator:
    """Turns samples into a `Batch`.

    Args:
        processor: of the base model, from `gp.backbones.processor.load_processor`.
        min_pixels: images are enlarged to at least this area; None: the processor's own setting.
        max_pixels: images are reduced to at most this area; None: the processor's own setting.

    Raises:
        ValueError: the chat template has no token that ends a turn, or limits for images of one fixed size.
    """

    def __init__(self, processor: Any, min_pixels: int | None = None, max_pixels: int | None = None):
        self.processor = processor
        self.end_id = end_of_turn_id(processor)
        self.processor_kwargs: dict[str, Any] = {"padding": True, "padding_side": "left"}
        given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self.pixels = {name: area for name, area in given.items() if area is not None}
        if self.pixels:
            self.processor_kwargs["images_kwargs"] = processor.pixel_limits(min_pixels, max_pixels)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Tokenises prompts and answers, prepares the images and draws the evidence masks."""
        inputs = dict(
            self.processor.apply_chat_template(
                [question_messages(sample) for sample in samples],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs=dict(self.processor_kwargs),
            )
        )
        answer_ids, answer_mask = self.answers([sample.answer for sample in samples])
        grids = self.processor.grids(inputs)
        frames = [self.processor.frame(*sample.image.size) for sample in samples]
        masks = [
            sample_evidence(sample, *grid, frame) for sample, grid, frame in zip(samples, grids, frames, strict=True)
        ]
        return Batch(inputs, answer_ids, answer_mask, masks, list(samples), frames=frames)

    def answers(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Answers as the assistant would write them, end token included: ids int64 [B, A] and mask bool [B, A]."""
        encode = self.processor.tokenizer
        rows = [torch.tensor([*encode(text, add_special_tokens=False)["input_ids"], self.end_id]) for text in texts]
        pad = encode.pad_token_id if encode.pad_token_id is not None else self.end_id
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(ids.shape[1]) < lengths[:, None]

    def num_visual_tokens(self, width: int, height: int) -> int:
        """How many visual tokens an image of so many pixels will have, without one."""
        sizes = self.processor._get_num_multimodal_tokens(image_sizes=[[height, width]], **self.pixels)
        return sizes.num_image_tokens[0]


def question_messages(sample: Sample) -> list[dict[str, Any]]:
    """The conversation up to the answer, in transformers' chat format: one user turn, image first."""
    content = [{"type": "image", "image": sample.image}, {"type": "text", "text": sample.question}]
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
