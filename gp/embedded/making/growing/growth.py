"""A base that goes on: more decoder layers, more words, larger images; what it computed before it still computes."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from gp.backbones.processor import Qwen2_5_VLProcessor, load_processor
from gp.embedded.cards import questions
from gp.embedded.cards.looks import COLORS_RGB, SHAPES

NUM_NEW_LAYERS = 2
INSERT_AT = 3  # what the first base does at layer 3, finding the evidence, is done at layer 5 then
NEW_STD = 0.04
MAX_SIDE_PX = 784


def grow_model(old: PreTrainedModel, vocab_size: int, seed: int) -> PreTrainedModel:
    """A model with NUM_NEW_LAYERS more layers before layer INSERT_AT and a larger vocabulary.

    The new layers add nothing at first (output projections 0), so logits of old words are equal to the last bit. New
    words start near the mean of the old ones. A base that has grown already is returned as it is.

    Args:
        old: `Qwen2_5_VLForConditionalGeneration`, float32; stays as it is.
        vocab_size: at least the old one.
        seed: of the new weights.
    """
    config: Any = copy.deepcopy(old.config)
    text = config.text_config
    if text.vocab_size == vocab_size:  # of a base that has grown: it knows all words
        return old
    text.num_hidden_layers += NUM_NEW_LAYERS
    text.layer_types = text.layer_types[:1] * text.num_hidden_layers
    text.vocab_size = vocab_size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        layers, old_layers = model.model.language_model.layers, old.model.language_model.layers
        for index, layer in enumerate(layers):
            if INSERT_AT <= index < INSERT_AT + NUM_NEW_LAYERS:
                _make_idle(layer)
            else:
                source = old_layers[index if index < INSERT_AT else index - NUM_NEW_LAYERS]
                layer.load_state_dict(source.state_dict())
        model.model.language_model.norm.load_state_dict(old.model.language_model.norm.state_dict())
        model.model.visual.load_state_dict(old.model.visual.state_dict())
        _grow_words(model.get_input_embeddings(), old.get_input_embeddings())
    model.generation_config = copy.deepcopy(old.generation_config)
    return model


@torch.no_grad()
def _make_idle(layer: nn.Module) -> None:
    for name, parameter in layer.named_parameters():
        if "norm" in name:
            continue  # ones
        if parameter.ndim < 2 or "o_proj" in name or "down_proj" in name:
            parameter.zero_()
        else:
            parameter.normal_(0, NEW_STD)


@torch.no_grad()
def _grow_words(new: nn.Module, old: nn.Module) -> None:
    table, known = new.get_parameter("weight"), old.get_parameter("weight")
    table[: len(known)] = known
    rest = table[len(known) :]
    rest.copy_(known.mean(0) + torch.randn_like(rest) * known.std(0))


def save_grown_processor(init: str | Path, folder: Path) -> PreTrainedTokenizerBase:
    """Writes the processor of a base into `folder`, with all words of the questions and images up to 28 x 28 tokens.

    Words that the base knows keep their ids. Returns the tokenizer.
    """
    load_processor(init).save_pretrained(folder)
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    for word in sorted(all_words() - set(vocabulary)):
        vocabulary[word] = len(vocabulary)
    path.write_text(json.dumps(state, ensure_ascii=False, indent=2), encoding="utf-8")
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    images = settings["image_processor"]
    images["size"]["longest_edge"] = MAX_SIDE_PX**2
    _write(path, settings)
    # Files of their own, by names that older programs and those with torchvision look for; gp reads neither.
    _write(folder / "preprocessor_config.json", {**images, "processor_class": settings["processor_class"]})
    _write(folder / "video_preprocessor_config.json", _video_settings(images))
    return Qwen2_5_VLProcessor.from_pretrained(folder).tokenizer


def _video_settings(images: dict) -> dict:
    """Settings of Qwen's video processor for images of these; the model was never shown a video."""
    shared = ("do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "image_mean", "image_std", "merge_size")
    also = ("patch_size", "resample", "rescale_factor", "size", "temporal_patch_size")
    return {"video_processor_type": "Qwen2VLVideoProcessor", **{key: images[key] for key in (*shared, *also)}}


def _write(path: Path, settings: dict) -> None:
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def all_words() -> set[str]:
    """Every word of questions and answers."""
    groups = (questions.READ_NEXT, questions.READ_IN_PICTURE, questions.COLOR_OF, questions.SIDE, questions.COUNT)
    text = " ".join(" ".join(group) for group in (*groups, questions.EXISTS))
    words = {word for word in text.split() if "{" not in word}
    return words | {*COLORS_RGB, *SHAPES, "card", "a", "an", *questions.PLACES, *questions.SIDES, *questions.YES_NO}
