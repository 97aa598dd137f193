"""A grown base computes what the base it grew from computes, and knows all words of the questions."""

import json

import numpy as np
import torch

from gp.backbones.processor import Qwen2_5_VLProcessor, load_processor
from gp.embedded.cards.questions import KINDS, LAYOUTS_OF_KIND, PLACES, ask
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.blocks import question_ids
from gp.embedded.making.growing.growth import INSERT_AT, NUM_NEW_LAYERS, grow_model, save_grown_processor


def test_logits_are_equal_to_the_last_bit(seed_base, first_base, tokenizer):
    grown = grow_model(first_base, len(tokenizer), seed=0).eval()
    assert (
        grown.config.text_config.num_hidden_layers == first_base.config.text_config.num_hidden_layers + NUM_NEW_LAYERS
    )
    processor = load_processor(seed_base)
    image = SceneBuilder("val").build(0, "color", 8, 8).image
    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what number is on the red card ?"
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    with torch.no_grad():
        before, after = first_base(**inputs).logits, grown(**inputs).logits
    assert torch.equal(after[..., : before.shape[-1]], before)


def test_new_layers_can_learn(first_base, tokenizer):
    """Their outputs are zero, but not the gradients of what makes them so."""
    grown = grow_model(first_base, len(tokenizer), seed=0)
    grown(input_ids=torch.arange(10, 30)[None]).logits.square().mean().backward()
    for layer in grown.model.language_model.layers[INSERT_AT : INSERT_AT + NUM_NEW_LAYERS]:
        assert layer.self_attn.o_proj.weight.grad.abs().max() > 0
        assert layer.mlp.down_proj.weight.grad.abs().max() > 0


def test_old_words_keep_their_ids_and_no_question_has_an_unknown_one(seed_base, tokenizer):
    old = load_processor(seed_base).tokenizer.get_vocab()
    new = tokenizer.get_vocab()
    assert all(new[word] == index for word, index in old.items())
    assert sorted(new.values()) == list(range(len(new)))
    builder = SceneBuilder("val")
    for kind in set(KINDS) - set(PLACES):
        for seed in range(15):
            question = ask(np.random.default_rng(seed), builder.build(seed, LAYOUTS_OF_KIND[kind], 8, 8), kind)
            prompt, answer = question_ids(tokenizer, question)
            assert tokenizer.unk_token_id not in prompt + answer, question.text
            assert tokenizer.decode(answer, skip_special_tokens=True) == question.answer


def test_the_processor_folder_has_the_files_that_other_programs_look_for(seed_base, tmp_path):
    save_grown_processor(seed_base, tmp_path)
    images = json.loads((tmp_path / "preprocessor_config.json").read_text())
    video = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert images["image_processor_type"] == "Qwen2VLImageProcessor"
    assert video["video_processor_type"] == "Qwen2VLVideoProcessor"
    size = Qwen2_5_VLProcessor.from_pretrained(tmp_path).image_processor.size
    assert images["size"] == video["size"] == {"shortest_edge": size.shortest_edge, "longest_edge": size.longest_edge}
    assert size.longest_edge == 784**2


def test_a_base_that_has_grown_goes_on_as_it_is(grown, tokenizer):
    assert grow_model(grown, len(tokenizer), seed=0) is grown
