"""The demo's answers are those of `ask` and `chat`, and what it shows beside them is what happened."""

from __future__ import annotations

import pytest
import torch

import gp
from gp.demo.answering import Background, Reply, reply_to
from gp.demo.examples import draw_examples
from gp.demo.options import load_demo_config
from gp.demo.turns import DECIDES, EXACTLY, Request, conversation, method_choices
from gp.images import read_images

SECOND = "and on the orange card ?"


@pytest.fixture(scope="module")
def model():
    config = load_demo_config([])
    loaded = gp.from_pretrained(config.model.base, config.glimpse(), dtype="float32")
    loaded.pruner_settings = config.settings()
    return loaded


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return draw_examples(tmp_path_factory.mktemp("examples"))


def last(replies) -> Reply:
    *_, reply = replies
    return reply


def test_a_reply_is_the_answer_of_ask(model, examples):
    pictures = read_images(list(examples[0].pictures))
    replies = list(reply_to(model, pictures, [], examples[0].question, model.glimpse, model.options, 8))
    expected = model.ask(pictures, examples[0].question, max_new_tokens=8)
    final = replies[-1]
    assert final.text == expected.text == examples[0].answer
    assert (final.figures.num_kept, final.figures.num_visual) == (expected.num_kept, expected.num_visual)
    assert torch.equal(final.answer.keep_masks[0], expected.keep_masks[0])
    assert all(final.text.startswith(one.text.strip()) and one.figures is None for one in replies[:-1])
    assert len(replies) > 2  # it came in pieces


def test_a_later_turn_is_that_of_a_chat(model, examples):
    pictures = read_images(list(examples[0].pictures))
    chat = model.chat(pictures, max_new_tokens=8)
    first = chat.ask(examples[0].question)
    expected = chat.ask(SECOND)
    history = [(examples[0].question, first.text)]
    found = last(reply_to(model, pictures, history, SECOND, model.glimpse, model.options, 8))
    assert found.text == expected.text and torch.equal(found.answer.keep_masks[0], expected.keep_masks[0])


def test_the_glimpse_keeps_what_is_hotter_than_its_threshold(model, examples):
    pictures = read_images(list(examples[1].pictures))
    reply = last(reply_to(model, pictures, [], examples[1].question, model.glimpse, model.options, 4))
    assert torch.equal(reply.heat[0] > model.options.threshold, reply.answer.keep_masks[0])


@pytest.mark.parametrize("method", ["fastv", "divprune"])
def test_a_ranking_keeps_what_is_hottest(model, examples, method):
    pictures = read_images(list(examples[0].pictures))
    options = model.options.but(fixed_keep_ratio=0.1)
    reply = last(reply_to(model, pictures, [], examples[0].question, model.find_pruner(method), options, 4))
    kept = reply.answer.keep_masks[0]
    assert reply.heat[0][kept].min() > reply.heat[0][~kept].max()
    assert reply.heat[0].min() >= 0 and reply.heat[0].max() <= 1


def test_the_cache_of_a_pruned_prompt_is_counted_by_hand(model, examples):
    pictures = read_images(list(examples[0].pictures))
    ask = (model, pictures, [], examples[0].question)
    small = last(reply_to(*ask, model.glimpse, model.options, 4)).figures
    large = last(reply_to(*ask, model.find_pruner("none"), model.options, 4)).figures
    text = model.config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    of_a_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head * 4 / 2**20
    dropped = large.num_kept - small.num_kept
    assert large.kv_cache_mib - small.kv_cache_mib == pytest.approx(dropped * of_a_token)


def test_the_error_of_work_in_the_background_is_not_lost():
    ended = []
    with pytest.raises(ZeroDivisionError):
        Background(lambda: 1 / 0, lambda: ended.append(True)).result()
    assert ended == [True]


def test_a_turn_on_the_page(model, examples):
    pictures = read_images(list(examples[0].pictures))
    request = Request("glimpse", DECIDES, model.options.threshold, 0.1)
    states = list(conversation(model, pictures, examples[0].question, [], request, 8, "a machine"))
    left, right, table, kept, heat, exchanges = states[-1]
    assert (
        [one["content"] for one in left]
        == [examples[0].question, examples[0].answer]
        == [one["content"] for one in right]
    )
    assert exchanges == [(examples[0].question, examples[0].answer, examples[0].answer)]
    assert kept.size == heat.size == pictures[0].size
    rows = dict(line.strip("| ").split(" | ", 1) for line in table.splitlines()[2:6])
    assert set(rows) >= {"visual tokens", "prefill, ms", "a new token, ms", "KV cache, MiB"} and "a machine" in table
    assert "256" in rows["visual tokens"]
    *_, following = conversation(model, pictures, SECOND, exchanges, request, 8, "a machine")
    assert [one["role"] for one in following[0]] == ["user", "assistant"] * 2 and len(following[-1]) == 2


def test_zoom_frames_its_crops_on_the_page(model, examples):
    pictures = read_images(list(examples[0].pictures))
    request = Request("zoom", EXACTLY, 0.5, 0.1)
    *_, (_, _, _, kept, heat, _) = conversation(model, pictures, examples[0].question, [], request, 8, "a machine")
    answer = model.ask(pictures, examples[0].question, pruner="zoom", budget=0.1, max_new_tokens=8)
    assert answer.crops and kept.tobytes() == answer.overlay().tobytes() and heat.size == pictures[0].size


def test_what_cannot_be_asked(model, examples):
    pictures = read_images(list(examples[0].pictures))
    request = Request("glimpse", DECIDES, 0.5, 0.1)
    for given, question, message in (([], "what ?", "no picture"), (pictures, "  ", "no question")):
        with pytest.raises(ValueError, match=message):
            next(conversation(model, given, question, [], request, 8, "a machine"))


def test_the_methods_on_offer(model):
    assert method_choices(model)[0] == "glimpse" and not {"none", "oracle"} & set(method_choices(model))
    assert not {"glimpse", "zoom"} & set(method_choices(gp.from_pretrained("tiny")))


def test_the_base_answers_every_example_right(model, examples):
    for one in examples:
        answer = model.ask(read_images(list(one.pictures)), one.question, pruner="none", max_new_tokens=8)
        assert answer.text == one.answer
