"""Micro LLaVA bases on disk, with their processor: in transformers' naming and in the original one."""

from __future__ import annotations

import json
import string
from pathlib import Path

from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, LlamaTokenizer, LlavaForConditionalGeneration

from gp.backbones.llava_original import RENAMED
from gp.backbones.llava_processor import IMAGE_TOKEN, LlavaProcessor
from tests.support.tiny_models import LLAVA_SIDE, PATCH_PX, tiny_llava

SIDE_PX = LLAVA_SIDE * PATCH_PX
PIECES = ("<unk>", "<s>", "</s>", "<0x0A>", "▁", *string.ascii_letters, *string.digits, *"?:.,'-")
# one turn after the other and no system line: what the published conversions to transformers' naming write
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role.upper() + ': ' }}"
    "{% for part in message.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def micro_tokenizer() -> LlamaTokenizer:
    """LLaMA's own class; a token a character, none for images."""
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    return LlamaTokenizer(vocab=vocabulary, merges=[], legacy=True, add_bos_token=True)


def micro_processor() -> LlavaProcessor:
    """As the conversions have it: image and padding tokens behind the vocabulary, images cropped."""
    tokenizer = micro_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.padding_side = "left"
    return LlavaProcessor(
        micro_image_processor(),
        tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def micro_image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX}, resample=3
    )


def micro_base(seed: int = 0, **changes) -> LlavaForConditionalGeneration:
    """A random model for `micro_processor`, whose vocabulary ends with the image and the padding token."""
    base = tiny_llava(seed, vocabulary=len(PIECES) + 2, image_token_id=len(PIECES), kv_heads=4, **changes)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": len(PIECES) + 1}
    for name, value in ids.items():
        setattr(base.config.text_config, name, value)
        setattr(base.generation_config, name, value)
    return base


def save_base(folder: Path, seed: int = 0, **changes) -> str:
    """A base in transformers' naming, with its processor; returns its path."""
    micro_base(seed, **changes).save_pretrained(folder)
    micro_processor().save_pretrained(folder)
    return str(folder)


def save_original(folder: Path, base: LlavaForConditionalGeneration, aspect_ratio: str = "pad") -> str:
    """The same base in the original naming: another `config.json`, vision tower apart, no tokens behind the words."""
    folder.mkdir(parents=True)
    base.model.vision_tower.save_pretrained(folder / "clip")
    micro_image_processor().save_pretrained(folder / "clip")
    micro_tokenizer().save_pretrained(folder)
    save_file(original_weights(base), folder / "model.safetensors")
    text = base.config.text_config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    config = {name: getattr(text, name) for name in (*names, "rms_norm_eps", "max_position_embeddings")}
    config |= {"model_type": "llava_llama", "vocab_size": len(PIECES), "torch_dtype": "float32"}
    config |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "mm_projector_type": "mlp2x_gelu"}
    config["mm_hidden_size"] = base.config.vision_config.hidden_size
    config |= {"mm_vision_tower": "./clip", "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch"}
    (folder / "config.json").write_text(json.dumps({**config, "image_aspect_ratio": aspect_ratio}))
    return str(folder)


def original_weights(base: LlavaForConditionalGeneration) -> dict:
    """Under the original names; embedding and head without the two tokens that only the conversion has."""
    back = sorted(((new, old) for old, new in RENAMED.items() if new), key=lambda pair: -len(pair[0]))
    weights = {}
    for name, value in base.state_dict().items():
        found = next(((new, old) for new, old in back if name.startswith(new)), None)
        if found is None:
            continue  # the vision tower
        if value.shape[0] == len(PIECES) + 2:
            value = value[: len(PIECES)]
        weights[found[1] + name[len(found[0]) :]] = value.clone()
    return weights
