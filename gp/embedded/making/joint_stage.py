"""Language modelling over several questions packed behind one image, with a pull of attention to the evidence.

All questions of a scene share one image prefix. A question's tokens see the prefix and their own past only, and
their rotary positions start right after the prefix each time, so every question computes what it would alone
(tested), at a fraction of the cost.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from gp.backbones.attention import read_attention
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.backbones.recording import record_calls
from gp.embedded.making.scene_stream import ANSWER_LENGTH
from gp.embedded.making.vision_stage import encode_images


@dataclass
class JointOutput:
    """answer_loss, evidence_loss: scalars. visual_tokens: [B, V, D]. is_exact: bool [B, Q], all of the answer right."""

    answer_loss: torch.Tensor
    evidence_loss: torch.Tensor
    visual_tokens: torch.Tensor
    is_exact: torch.Tensor


def image_prefix_ids(tokenizer, num_visual_tokens: int) -> torch.Tensor:
    """Token ids before the questions, int64 [P]: user header and the image's placeholders."""
    text = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * num_visual_tokens + "<|vision_end|>"
    return torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)


def packed_positions(
    model: PreTrainedModel, prefix_ids: torch.Tensor, side: int, shape: tuple[int, int]
) -> torch.Tensor:
    """Rotary positions of prefix and questions, int64 [3, P + Q * T].

    Args:
        prefix_ids: int64 [P]. side: visual tokens per row. shape: (Q, T), questions and tokens of each.
    """
    merge = model.config.vision_config.spatial_merge_size
    inputs = {"input_ids": prefix_ids[None], "image_grid_thw": torch.tensor([[1, side * merge, side * merge]])}
    prefix = Qwen2_5_VL(model).positions(inputs, torch.ones_like(prefix_ids[None]))
    questions = prefix.max() + 1 + torch.arange(shape[1]).repeat(shape[0])
    return torch.cat([prefix[:, 0], questions.expand(3, -1)], dim=1)


def packed_mask(num_prefix: int, text_ids: torch.Tensor) -> torch.Tensor:
    """Keys that each query may see, bool [B, 1, L, L], L = num_prefix + Q * T; text_ids [B, Q, T], -1 is padding."""
    _, num_questions, length = text_ids.shape
    block = torch.cat([torch.full((num_prefix,), -1), torch.arange(num_questions).repeat_interleave(length)])
    is_causal = torch.ones(len(block), len(block), dtype=torch.bool).tril()
    allowed = is_causal & ((block[None] == -1) | (block[None] == block[:, None]))
    is_token = F.pad(text_ids.flatten(1) >= 0, (num_prefix, 0), value=True)
    # A padded query keeps the prefix, so no row of the mask is empty.
    return (allowed[None] & is_token[:, None, :])[:, None]


def joint_forward(model: PreTrainedModel, tokenizer, batch: dict, evidence_layer: int) -> JointOutput:
    """One pass over a batch of `SceneStream` with questions.

    Args:
        model: `Qwen2_5_VLForConditionalGeneration`.
        evidence_layer: decoder layer (0-based) at which attention is pulled to the evidence.
    """
    visual_tokens = encode_images(model, batch["images"])
    size, num_visual, _ = visual_tokens.shape
    text_ids, prompt_lengths = batch["text_ids"], batch["prompt_lengths"]
    _, num_questions, length = text_ids.shape
    prefix_ids = image_prefix_ids(tokenizer, num_visual)
    num_prefix = len(prefix_ids)
    ids = torch.cat([prefix_ids.expand(size, -1), text_ids.flatten(1).clamp(min=0)], dim=1)
    embeds = model.get_input_embeddings()(ids)
    first = int((prefix_ids == model.config.image_token_id).nonzero()[0])
    embeds = torch.cat([embeds[:, :first], visual_tokens, embeds[:, first + num_visual :]], dim=1)
    positions = packed_positions(model, prefix_ids, round(num_visual**0.5), (num_questions, length))
    mask = packed_mask(num_prefix, text_ids)

    decoder = Qwen2_5_VL(model).text_model
    with record_calls([decoder.layers[evidence_layer]]) as calls:
        hidden = decoder(
            inputs_embeds=embeds,
            position_ids=positions[:, None].expand(3, size, -1),
            attention_mask={"full_attention": mask},
            use_cache=False,
        ).last_hidden_state

    # The last prompt token of each question, and the tokens that predict the answer: [B, Q], [B, Q, 3].
    last = num_prefix + length * torch.arange(num_questions) + prompt_lengths - 1
    (((layer_input,), call),) = calls
    weights = attention_rows(model, evidence_layer, layer_input, call["position_embeddings"], last, mask)
    on_evidence = weights[..., first : first + num_visual] * batch["evidence"][:, None]
    evidence_loss = -on_evidence.sum(-1).mean(1).clamp(min=1e-6).log().mean()

    steps = torch.arange(ANSWER_LENGTH)
    rows = (last[..., None] + steps).flatten(1)
    logits = model.lm_head(_take(hidden, rows)).view(size, num_questions, ANSWER_LENGTH, -1)
    answers = text_ids.gather(2, prompt_lengths[..., None] + steps)
    answer_loss = F.cross_entropy(logits.flatten(0, 2), answers.flatten())
    is_exact = (logits.argmax(-1) == answers).all(-1)
    return JointOutput(answer_loss, evidence_loss, visual_tokens, is_exact)


def attention_rows(
    model: PreTrainedModel,
    layer: int,
    hidden: torch.Tensor,
    rotary: tuple[torch.Tensor, torch.Tensor],
    rows: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Attention weights of a few query rows of a decoder layer, [B, A, R, L].

    Args:
        hidden: [B, L, D], the layer's input. rotary: cosine and sine of its rows.
        rows: int64 [B, R]. mask: bool [B, 1, L, L].
    """
    backbone = Qwen2_5_VL(model)
    batch, length, _ = hidden.shape
    cos, sin = (_take(part.expand(batch, -1, -1), rows) for part in rotary)
    queries = backbone.query(layer, _take(hidden, rows), (cos, sin))
    logits = read_attention(queries, backbone.key(layer, hidden, rotary), visible=None, log_softmax=False)
    row_mask = mask[:, 0].gather(1, rows[..., None].expand(-1, -1, length))
    return logits.masked_fill(~row_mask[:, None], float("-inf")).softmax(-1)


def _take(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """x [B, L, D], rows [B, R] -> [B, R, D]."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
