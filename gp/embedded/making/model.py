"""The embedded model before training: vocabulary, tokenizer, processor and a randomly initialised Qwen2.5-VL."""

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from gp.backbones.processor import Qwen2_5_VLProcessor
from gp.config.pretrain import PretrainConfig
from gp.embedded.making.scenes import COLORS_RGB, IMAGE_SIZE_PX, SHAPES, TEMPLATES

PAD, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = [PAD, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD]
UNKNOWN = "<unk>"

# The shape of Qwen2.5-VL's template without its default system prompt, which means nothing to this model.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_vocabulary() -> dict[str, int]:
    """Token to id: special tokens, digits, colours, shapes and the words of the question templates (about 45)."""
    words = {word for template in TEMPLATES for word in template.split() if not word.startswith("{")}
    ordered = [*SPECIAL_TOKENS, UNKNOWN, "\n", "system", "user", "assistant"]
    ordered += [str(digit) for digit in range(10)]
    ordered += [*COLORS_RGB, "card", *SHAPES, *sorted(words)]
    return {token: index for index, token in enumerate(ordered)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, split at spaces, every digit, newline and punctuation mark by itself."""
    backend = Tokenizer(models.WordLevel(build_vocabulary(), unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=IM_END,
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in (PAD, IM_END)],
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_processor() -> Qwen2_5_VLProcessor:
    """Qwen's processor over our tokenizer; images keep their size up to 448 x 448 px, in steps of 28 px."""
    image_processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 56 * 56, "longest_edge": (2 * IMAGE_SIZE_PX) ** 2},
        patch_size=14,
        temporal_patch_size=2,
        merge_size=2,
    )
    return Qwen2_5_VLProcessor(image_processor, build_tokenizer(), chat_template=CHAT_TEMPLATE)


def build_model_config(cfg: PretrainConfig) -> Qwen2_5_VLConfig:
    """The transformers configuration of the sizes in `cfg.model`."""
    vocabulary, size = build_vocabulary(), cfg.model
    head_dim = size.hidden_size // size.num_heads
    # Rotary frequencies of one head: a quarter for the temporal axis, three eighths each for rows and columns.
    sides = 3 * (head_dim // 2) // 8
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": size.hidden_size,
            "intermediate_size": size.intermediate_size,
            "num_hidden_layers": size.num_layers,
            "num_attention_heads": size.num_heads,
            "num_key_value_heads": size.num_kv_heads,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head_dim // 2 - 2 * sides, sides, sides],
            },
            "bos_token_id": None,
            "eos_token_id": vocabulary[IM_END],
            "pad_token_id": vocabulary[PAD],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden_size,
            "intermediate_size": size.vision_intermediate_size,
            "num_heads": size.vision_num_heads,
            "out_hidden_size": size.hidden_size,
            "window_size": 112,
            "fullatt_block_indexes": list(range(1, size.vision_depth, 2)),
        },
        image_token_id=vocabulary[IMAGE_PAD],
        video_token_id=vocabulary[VIDEO_PAD],
        vision_start_token_id=vocabulary[VISION_START],
        vision_end_token_id=vocabulary[VISION_END],
        tie_word_embeddings=True,
    )


def build_model(cfg: PretrainConfig) -> Qwen2_5_VLForConditionalGeneration:
    """A stock transformers model with random float32 weights drawn from `cfg.seed`."""
    torch.manual_seed(cfg.seed)
    model = Qwen2_5_VLForConditionalGeneration(build_model_config(cfg))
    vocabulary = build_vocabulary()
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=vocabulary[IM_END], pad_token_id=vocabulary[PAD], max_new_tokens=8
    )
    return model
