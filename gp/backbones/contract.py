"""The contract of an LVLM family: everything that a new backbone has to state, and nothing that it inherits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel

from gp.backbones.cropping import Crop
from gp.backbones.processor import ImageGrids
from gp.backbones.source import BaseSource
from gp.types import ImageFeatures


class Family(ABC):
    """Facts about one transformers family; `self.model` is the stock `...ForConditionalGeneration`."""

    model_type: str  # config.model_type of the family
    processor: type[ImageGrids]  # the family's stock processor class with `ImageGrids`
    prompt_keys: tuple[str, ...]  # processor outputs that describe a prompt
    num_position_axes: int = 1  # P, rotary axes
    image_frame: tuple[int, int]  # text tokens before and behind those of an image that belong to it
    one_image_size: bool = False  # whether all images of a batch have one size
    attends_from_cls: bool = False  # whether the vision tower has a [CLS] token
    fast_tower: bool = False  # whether the vision tower embeds patches by a product and pads its MLPs, where known
    window: int | None = None  # side of the vision tower's attention windows in merged tokens, if it has windows

    def __init__(self, model: PreTrainedModel) -> None:
        self.model: Any = model  # families call their parts by name, which a type checker cannot follow

    @property
    def takes_one_frame(self) -> bool:
        """Whether patches may come with one of their frames alone, where all are alike (`Batch.one_frame`)."""
        return False

    # ---- what each family states ------------------------------------------------------------------------------

    @property
    @abstractmethod
    def text_model(self) -> Any:
        """The stock decoder: `embed_tokens`, `layers`, `norm`, `rotary_emb`, and a forward with a cache."""

    @property
    @abstractmethod
    def vision_hidden_size(self) -> int:
        """Width C of the tapped vision layers."""

    @property
    @abstractmethod
    def num_vision_taps(self) -> int:
        """Vision layers that can be tapped, numbered from 0."""

    @abstractmethod
    def image_sizes(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        """(height, width) in merged tokens of every image of the inputs, in order."""

    @property
    @abstractmethod
    def attention_blocks(self) -> tuple[int, int]:
        """Shallow and deepest vision block whose attention ranks tokens; both see the whole image."""

    @abstractmethod
    def encode_images(
        self, inputs: Mapping[str, Tensor], taps: Sequence[int], attended: Sequence[int] = ()
    ) -> ImageFeatures:
        """Runs the vision tower once, on at least one image. The features may be on any device.

        Args:
            inputs: the processor's image tensors.
            taps: vision layers whose features [N, C] are wanted.
            attended: vision blocks whose attention is wanted.
        """

    @abstractmethod
    def downsample(self, inputs: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Returns the same prompts with every image resized to the given (height, width) in merged tokens."""

    @abstractmethod
    def crop(self, inputs: Mapping[str, Tensor], crops: Sequence[Crop]) -> dict[str, Tensor]:
        """Image tensors of parts of the images, each as an image of its own, at the resolution of the inputs."""

    def fit_box(self, box: tuple[int, int, int, int], grid: tuple[int, int]) -> tuple[int, int, int, int]:
        """The box to cut out of an image of so many tokens so that `box` is in it, in a shape that the tower takes."""
        return box

    def image_facts(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """What `positions` must be given of images of these sizes in merged tokens."""
        return {}

    @abstractmethod
    def positions(self, inputs: Mapping[str, Tensor], attention_mask: Tensor) -> Tensor:
        """Rotary positions of the prompt, [P, B, S] int64; everything is on one device, best the host."""

    # ---- before there is a model --------------------------------------------------------------------------------

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        """Tells if a base with this `config.json` is of the family."""
        return config.get("model_type") == cls.model_type

    @classmethod
    def load(cls, source: BaseSource, **options: Any) -> PreTrainedModel:
        """Loads the stock model; `options` are transformers': `dtype`, `device_map`, `quantization_config`, ..."""
        # transformers looks for an adapter beside the base, and would ask the network for it in spite of `hub`
        return AutoModelForImageTextToText.from_pretrained(
            source.place,
            revision=source.revision,
            trust_remote_code=False,
            adapter_kwargs=dict(source.hub),
            **source.hub,
            **options,
        )

    @classmethod
    def stock_config(cls, source: BaseSource) -> PretrainedConfig:
        """The config of the stock model that `load` gives; nothing but json files is read."""
        return AutoConfig.from_pretrained(source.place, revision=source.revision, trust_remote_code=False, **source.hub)

    @classmethod
    def outline(cls, source: BaseSource) -> PreTrainedModel:
        """The stock model with all its sizes and no weights: they are on the device `meta`."""
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(cls.stock_config(source))
