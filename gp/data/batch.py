"""From samples to the tensors of one batch: prompts, answers and evidence masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gp.boxes import evidence_mask, normalize_boxes
from gp.data.cursor import Cursor
from gp.data.sample import Sample

MARKER = "\u2603"  # a text that no chat template contains


class Batch:
    """B samples, ready for the model. Not a dataclass: Lightning takes those apart to convert every tensor in them.

    Args:
        inputs: the prompts up to and including the assistant header, as the processor made them, left padded:
            `input_ids`, `attention_mask` and `mm_token_type_ids` int64 [B, L], `pixel_values` float32 [n_patches, C],
            `image_grid_thw` int64 [B, 3] (patches).
        answer_ids: int64 [B, A], answer tokens and the token that ends a turn, right padded.
        answer_mask: bool [B, A], False on padding.
        evidence_masks: one bool [h, w] an image, on the grid of merged tokens.
        samples: one a row, without their images in training.
        cursor: in training, where the worker's stream stands after this batch.
    """

    def __init__(
        self,
        inputs: dict[str, Tensor],
        answer_ids: Tensor,
        answer_mask: Tensor,
        evidence_masks: list[Tensor],
        samples: list[Sample],
        cursor: Cursor | None = None,
    ):
        self.inputs = inputs
        self.answer_ids = answer_ids
        self.answer_mask = answer_mask
        self.evidence_masks = evidence_masks
        self.samples = samples
        self.cursor = cursor

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
        )


class Collator:
    """Turns samples into a `Batch`.

    Args:
        processor: of the base model, e.g. from `gp.backbones.processor.load_processor`.
        min_pixels: images are enlarged to at least this area; None: the processor's own setting.
        max_pixels: images are reduced to at most this area; None: the processor's own setting.

    Raises:
        ValueError: the chat template has no token that ends a turn.
    """

    def __init__(self, processor: Any, min_pixels: int | None = None, max_pixels: int | None = None):
        self.processor = processor
        self.end_id = end_of_turn_id(processor)
        self.processor_kwargs: dict[str, Any] = {"padding": True, "padding_side": "left"}
        given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self.pixels = {name: area for name, area in given.items() if area is not None}
        if self.pixels:
            size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}  # areas, whatever these names say
            own = processor.image_processor.size
            size = {key: own[key] if area is None else area for key, area in size.items()}
            self.processor_kwargs["images_kwargs"] = {"size": size}

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
        grids = self.grids(inputs)
        masks = [sample_evidence(sample, *grid) for sample, grid in zip(samples, grids, strict=True)]
        return Batch(inputs, answer_ids, answer_mask, masks, list(samples))

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

    def grids(self, inputs: dict[str, Tensor]) -> list[tuple[int, int]]:
        """(height, width) of each image in merged visual tokens."""
        merge = self.processor.image_processor.merge_size
        return [(height // merge, width // merge) for _, height, width in inputs["image_grid_thw"].tolist()]


def question_messages(sample: Sample) -> list[dict[str, Any]]:
    """The conversation up to the answer, in transformers' chat format: one user turn, image first."""
    content = [{"type": "image", "image": sample.image}, {"type": "text", "text": sample.question}]
    return [{"role": "user", "content": content}]


def sample_evidence(sample: Sample, height: int, width: int) -> Tensor:
    """The evidence mask of a sample on a grid of height x width visual tokens; bool [height, width]."""
    return evidence_mask(normalize_boxes(sample.boxes_xyxy_px, sample.width, sample.height), height, width)


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
