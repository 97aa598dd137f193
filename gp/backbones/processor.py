"""Loading the processor of the Qwen2.5-VL family, with or without torchvision."""

from pathlib import Path
from typing import Any

import transformers


class Qwen2_5_VLProcessor(transformers.Qwen2_5_VLProcessor):
    """transformers' processor for images and text, without its video processor.

    The stock class insists on a video processor, and every video processor insists on torchvision. What a processor
    loads and checks follows the names in its constructor, so leaving `video_processor` out of it is enough.
    The class keeps the name of its parent because `save_pretrained` writes that name into the folder.
    """

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    def __call__(self, images=None, text=None, videos=None, **kwargs):
        """As the parent's call; the result has `input_ids`, `pixel_values` [n_patches, 1176], `image_grid_thw`, ...

        Raises:
            ValueError: videos were passed.
        """
        if videos is not None:
            raise ValueError("this processor takes images and text, got videos: gp prunes the tokens of images only")
        return super().__call__(images=images, text=text, **kwargs)


def load_processor(name_or_dir: str | Path, revision: str | None = None, **options: Any) -> Qwen2_5_VLProcessor:
    """Load the processor of a Qwen2.5-VL model, for images and text.

    Works for the embedded model and for the published ones alike, and whether or not torchvision is installed:
    without it transformers' `Qwen2_5_VLProcessor.from_pretrained` fails, because it also loads a video processor,
    for which there is only a torchvision version. Images then go through `Qwen2VLImageProcessorPil`.

    Args:
        name_or_dir: model id on the Hub or a local folder.
        revision: branch, tag or commit on the Hub; None is the default branch.
        options: settings that replace the saved ones, e.g. `min_pixels`, `max_pixels`; None: as saved.

    Returns:
        A `transformers.Qwen2_5_VLProcessor` that pads on the left, as batched generation needs.

    Raises:
        OSError: there is no such folder or model, or it lacks a file.
    """
    given = {name: value for name, value in options.items() if value is not None}
    processor = Qwen2_5_VLProcessor.from_pretrained(str(name_or_dir), revision=revision or "main", **given)
    processor.tokenizer.padding_side = "left"
    return processor
