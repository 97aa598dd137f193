"""Packed questions against single ones."""

import torch
import torch.nn.functional as F
from PIL import Image

from gp.embedded.making.joint_stage import image_prefix_ids, joint_forward
from gp.embedded.making.model import build_processor, build_tokenizer
from gp.embedded.making.scene_stream import SceneStream
from gp.embedded.making.scenes import SceneBuilder


def test_packed_questions_equal_single_ones(joint_case):
    """Loss and evidence attention of the packed pass are those of stock forward passes, one question at a time."""
    model, batch = joint_case
    tokenizer, layer = build_tokenizer(), 1
    model.set_attn_implementation("eager")
    losses, attention_losses = [], []
    prefix_ids = image_prefix_ids(tokenizer, 64)
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in batch["images"]]
    with torch.no_grad():
        for i, image in enumerate(images):
            pixels = build_processor().image_processor([image], return_tensors="pt")
            for ids, length, evidence in zip(
                batch["text_ids"][i], batch["prompt_lengths"][i], batch["evidence"][i], strict=True
            ):
                input_ids = torch.cat([prefix_ids, ids[ids >= 0]])[None]
                types = (input_ids == model.config.image_token_id).int()
                out = model(input_ids=input_ids, mm_token_type_ids=types, output_attentions=True, **pixels)
                start = len(prefix_ids) + int(length)
                losses.append(F.cross_entropy(out.logits[0, start - 1 : start + 2], input_ids[0, start : start + 3]))
                on_image = out.attentions[layer][0, :, start - 1, 4:68]
                attention_losses.append(-on_image[:, evidence].sum(-1).mean().log())
        model.set_attn_implementation("sdpa")
        packed = joint_forward(model, tokenizer, batch, layer)
    torch.testing.assert_close(packed.answer_loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(packed.evidence_loss, torch.stack(attention_losses).mean(), rtol=1e-5, atol=1e-6)


def test_training_prompt_is_the_processors_prompt(joint_case):
    """What the stage trains on is what `apply_chat_template` gives at inference, position for position."""
    scene = SceneBuilder("val").build(0, "color")
    processor, question = build_processor(), scene.questions[0]
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    expected = processor(images=[scene.image], text=[text])["input_ids"][0]
    stream = SceneStream(SceneBuilder("val"), processor.tokenizer, range(1), 1, 0, 0.0)
    packed = stream._pack_questions([scene])
    prompt = packed["text_ids"][0, 0, : packed["prompt_lengths"][0, 0]]
    assert image_prefix_ids(processor.tokenizer, 64).tolist() + prompt.tolist() == list(expected)
