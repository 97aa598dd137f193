"""Sixty small things that a service does with a model, over the three families: each is one test."""

from __future__ import annotations

import asyncio
import copy
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)
from transformers.generation.streamers import BaseStreamer

import gp
from tests.support.bases import BASES
from tests.support.glimpses import micro_glimpse

pytestmark = pytest.mark.core
SHORT: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
OUT: dict[str, Any] = {**SHORT, "return_dict_in_generate": True}
RED, BIG = "what is red ?", "what is big here ?"


def picture(seed: int = 0, width: int = 112, height: int = 56) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def message(question: str = RED, *pictures: Image.Image) -> list[dict]:
    shown = [{"type": "image", "image": one} for one in pictures or (picture(),)]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]


@dataclass
class Service:
    """What a service holds: the stock model, the pruned one around it, the processor."""

    folder: str
    base: PreTrainedModel
    model: gp.GlimpseModel
    processor: Any

    def inputs(self, *messages: list[dict]) -> dict[str, Tensor]:
        """The processor's output for one conversation or a batch of them."""
        how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        padding = {"padding": True, "padding_side": "left"}
        return self.processor.apply_chat_template(list(messages or (message(),)), processor_kwargs=padding, **how)

    def new_ids(self, ids: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        return ids[:, inputs["input_ids"].shape[1] :]


def load(family: str, folder: Path) -> Service:
    path = BASES[family](folder)
    loaded = gp.from_pretrained(path, dtype="float32")
    parts = micro_glimpse(loaded.base).glimpse
    model = gp.GlimpseModel(loaded.base, parts, gp.PruneOptions(max_keep_ratio=0.5), loaded.processor)
    return Service(path, loaded.base, model, loaded.processor)


@pytest.fixture(scope="module", params=BASES)
def service(request, tmp_path_factory) -> Service:
    return load(request.param, tmp_path_factory.mktemp(request.param) / "base")


@pytest.fixture(scope="module")
def few(service) -> Callable[..., Any]:
    """The pruned model's `generate`, greedy and short."""
    return partial(service.model.generate, **SHORT)


def same(left: Any, right: Any) -> bool:
    """Equal generated outputs, masks included."""
    masks = zip(left.keep_masks, right.keep_masks, strict=True)
    return torch.equal(left.sequences, right.sequences) and all(torch.equal(*pair) for pair in masks)


# ---- one call ---------------------------------------------------------------------------------------------------


def test_keeping_everything_is_stock(service, few):
    inputs = service.inputs()
    assert torch.equal(few(**inputs, pruner="none"), service.base.generate(**inputs, **SHORT))


def test_stock_is_used_beside_it(service, few):
    inputs = service.inputs()
    before = service.base.generate(**inputs, **SHORT)
    few(**inputs, num_keep=1)
    assert torch.equal(service.base.generate(**inputs, **SHORT), before)


def test_inputs_are_sent_to_the_models_device(service, few):
    inputs = service.inputs()
    assert torch.equal(few(**inputs.to(service.model.device)), few(**inputs))


def test_inputs_are_left_as_they_were(service, few):
    inputs = service.inputs()
    before = {name: value.clone() for name, value in inputs.items()}
    few(**inputs, num_keep=2)
    assert all(torch.equal(inputs[name], value) for name, value in before.items())


def test_the_same_call_gives_the_same_answer(service):
    inputs = service.inputs()
    assert same(service.model.generate(**inputs, **OUT), service.model.generate(**inputs, **OUT))


def test_a_prompt_comes_back_whole(service, few):
    inputs = service.inputs()
    out = few(**inputs, num_keep=2)
    assert torch.equal(out[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])


def test_text_without_a_picture(service, few):
    inputs = service.inputs([{"role": "user", "content": [{"type": "text", "text": RED}]}])
    assert torch.equal(few(**inputs), service.base.generate(**inputs, **SHORT))


def test_two_pictures_in_a_prompt(service):
    out = service.model.generate(**service.inputs(message(RED, picture(0), picture(1))), **OUT, num_keep=(3,))
    assert len(out.keep_masks) == 2 and sum(int(mask.sum()) for mask in out.keep_masks) == 3


def test_two_turns_written_by_hand(service, few):
    turns = [*message(), {"role": "assistant", "content": [{"type": "text", "text": "red"}]}]
    inputs = service.inputs([*turns, {"role": "user", "content": [{"type": "text", "text": BIG}]}])
    assert torch.equal(few(**inputs, pruner="none"), service.base.generate(**inputs, **SHORT))
    assert few(**inputs, num_keep=2).shape[1] > inputs["input_ids"].shape[1]


def test_a_system_message(service, few):
    inputs = service.inputs([{"role": "system", "content": [{"type": "text", "text": "be big"}]}, *message()])
    assert torch.equal(few(**inputs, pruner="none"), service.base.generate(**inputs, **SHORT))


# ---- budgets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["num_keep", "budget", "fixed_keep_ratio"])
def test_an_exact_budget(service, name):
    out = service.model.generate(**service.inputs(), **OUT, **{name: 3 if name == "num_keep" else 0.5})
    assert out.num_kept == (3,) if name == "num_keep" else out.num_kept[0] == out.num_visual[0] // 2


def test_a_threshold_of_everything_keeps_few(service):
    inputs = service.inputs()
    loose, strict = (service.model.generate(**inputs, **OUT, threshold=at, max_keep_ratio=None) for at in (0.01, 0.99))
    assert strict.num_kept[0] < loose.num_kept[0]


def test_corners_always_stay(service):
    out = service.model.generate(**service.inputs(), **OUT, anchors=("tl", "br"), num_keep=0, min_kept=0)
    (mask,) = out.keep_masks
    assert mask[0, 0] and mask[-1, -1] and out.num_kept == (2,)


def test_mixed_budgets_in_a_batch(service):
    batch = service.inputs(message(RED), message(BIG, picture(1)), message(RED, picture(2)))
    assert service.model.generate(**batch, **OUT, num_keep=(2, 6, 4)).num_kept == (2, 6, 4)


def test_mixed_options_in_a_batch(service):
    batch = service.inputs(message(RED), message(BIG))
    options = [gp.PruneOptions(num_keep=3), gp.PruneOptions(fixed_keep_ratio=1.0)]
    out = service.model.generate(**batch, **OUT, options=options)
    assert out.num_kept == (3, out.num_visual[1])


def test_mixed_budgets_are_those_of_single_requests(service):
    batch = service.inputs(message(RED), message(BIG))
    together = service.model.generate(**batch, **OUT, num_keep=(2, 5))
    for row, (question, count) in enumerate(((RED, 2), (BIG, 5))):
        inputs = service.inputs(message(question))
        alone = service.model.generate(**inputs, **OUT, num_keep=count)
        assert torch.equal(alone.keep_masks[0], together.keep_masks[row])
        mine = service.new_ids(alone.sequences, inputs)[0]
        assert service.new_ids(together.sequences, batch)[row, : len(mine)].tolist() == mine.tolist()


def test_a_budget_for_each_picture(service):
    inputs = service.inputs(message(RED, picture(0), picture(1)))
    out = service.model.generate(**inputs, **OUT, budget=0.5, budget_scope="image")
    assert [int(mask.sum()) for mask in out.keep_masks] == [mask.numel() // 2 for mask in out.keep_masks]


def test_defaults_of_the_service_hold(service):
    out = service.model.generate(**service.inputs(), **OUT, threshold=0.0)
    assert out.num_kept[0] == out.num_visual[0] // 2


def test_an_option_overrides_a_default(service):
    out = service.model.generate(**service.inputs(), **OUT, max_keep_ratio=None, threshold=0.0, min_kept=10**6)
    assert out.num_kept == out.num_visual


def test_a_typo_names_the_option(service, few):
    with pytest.raises(ValueError, match=r"max_keep_ration.*max_keep_ratio"):
        few(**service.inputs(), max_keep_ration=0.5)


# ---- methods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["random", "fastv", "divprune", "visionzip"])
def test_another_method_for_one_call(service, pruner):
    settings = {"layer": 1, "compact_cache": True} if pruner == "fastv" else {}
    out = service.model.generate(**service.inputs(), **OUT, pruner=pruner, **settings, num_keep=3)
    assert sum(int(mask.sum()) for mask in out.keep_masks) == 3


def test_a_draw_has_a_seed(service):
    draw = partial(service.model.generate, **service.inputs(), **OUT, pruner="random", num_keep=4)
    assert same(draw(seed=5), draw(seed=5)) and not same(draw(seed=5), draw(seed=6))


def test_a_method_that_does_not_exist_is_named(service, few):
    with pytest.raises(ValueError, match=r"fastw.*fastv"):
        few(**service.inputs(), pruner="fastw")


# ---- what generate takes ----------------------------------------------------------------------------------------


def test_a_generation_config(service):
    config = GenerationConfig(max_new_tokens=2, do_sample=False, pad_token_id=0)
    inputs = service.inputs()
    expected = service.base.generate(**inputs, generation_config=config)
    assert torch.equal(service.model.generate(**inputs, generation_config=config, pruner="none"), expected)


def test_sampling_with_a_seed(service):
    inputs = service.inputs()
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(service.model.generate(**inputs, do_sample=True, temperature=2.0, max_new_tokens=4))
    assert torch.equal(*runs)


def test_beams(service):
    inputs = service.inputs()
    expected = service.base.generate(**inputs, **SHORT, num_beams=2)
    assert torch.equal(service.model.generate(**inputs, **SHORT, num_beams=2, pruner="none"), expected)


def test_several_samples_of_a_prompt(service):
    out = service.model.generate(**service.inputs(), do_sample=True, max_new_tokens=2, num_return_sequences=3)
    assert len(out) == 3


def test_a_stopping_criterion(service):
    class AtOnce(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.ones(len(input_ids), dtype=torch.bool)

    inputs = service.inputs()
    out = service.model.generate(**inputs, **SHORT, stopping_criteria=StoppingCriteriaList([AtOnce()]))
    assert out.shape[1] == inputs["input_ids"].shape[1] + 1


def test_a_logits_processor(service):
    inputs = service.inputs()
    length, stop = inputs["input_ids"].shape[1], service.base.generation_config.eos_token_id
    forced = LogitsProcessorList([MinNewTokensLengthLogitsProcessor(length, 4, stop)])
    assert service.model.generate(**inputs, **SHORT, logits_processor=forced).shape[1] == length + 4


def test_logits_of_every_step(service):
    out = service.model.generate(**service.inputs(), **OUT, output_logits=True, min_new_tokens=4)
    assert len(out.logits) == 4 and all(step.isfinite().all() for step in out.logits)


def test_ids_by_position(service, few):
    inputs = dict(service.inputs())
    expected = few(**inputs)
    assert torch.equal(few(inputs.pop("input_ids"), **inputs), expected)


def test_speculative_decoding_is_refused_with_its_reason(service, few):
    with pytest.raises(ValueError, match=r"prompt_lookup_num_tokens.*dropped tokens"):
        few(**service.inputs(), prompt_lookup_num_tokens=2)


def test_a_video_is_refused(service, few):
    with pytest.raises(ValueError, match="video"):
        few(**service.inputs(), pixel_values_videos=torch.zeros(4, 4))


# ---- streams and threads ----------------------------------------------------------------------------------------


def test_tokens_stream_from_a_thread(service):
    inputs = service.inputs()
    streamer = TextIteratorStreamer(service.processor.tokenizer, skip_prompt=True, timeout=60)
    thread = Thread(target=service.model.generate, kwargs={**inputs, **SHORT, "streamer": streamer})
    thread.start()
    text = "".join(streamer)
    thread.join()
    ids = service.new_ids(service.model.generate(**inputs, **SHORT), inputs)
    assert text.split() == service.processor.tokenizer.decode(ids[0]).split()


def test_tokens_are_printed(service, capsys):
    streamer = TextStreamer(service.processor.tokenizer, skip_prompt=True)
    service.model.generate(**service.inputs(), **SHORT, streamer=streamer)
    assert capsys.readouterr().out.strip()


def test_a_streamer_of_ones_own_sees_every_token(service):
    class Tokens(BaseStreamer):
        def __init__(self):
            self.seen, self.ended = [], False

        def put(self, value):
            self.seen += value.flatten().tolist()

        def end(self):
            self.ended = True

    tokens = Tokens()
    out = service.model.generate(**service.inputs(), **SHORT, streamer=tokens)
    assert tokens.seen == out[0].tolist() and tokens.ended


def test_threads_share_a_model(service):
    """Requests with budgets of their own, at the same time, answer as one after the other."""
    prompts = [service.inputs(message(RED, picture(seed))) for seed in range(6)]

    def answer(job):
        return service.model.generate(**prompts[job], **OUT, num_keep=1 + job)

    one_by_one = [answer(job) for job in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert all(same(*pair) for pair in zip(one_by_one, pool.map(answer, range(6)), strict=True))


def test_threads_mix_pruned_and_stock(service):
    inputs = service.inputs()
    calls = [partial(service.base.generate, **inputs, **SHORT), partial(service.model.generate, **inputs, **SHORT)] * 3
    expected = [call() for call in calls]
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(*pair) for pair in zip(expected, pool.map(lambda call: call(), calls), strict=True))


def test_coroutines_wait_for_answers(service):
    async def serve():
        asked = [asyncio.to_thread(service.model.ask, picture(), text, max_new_tokens=3) for text in (RED, BIG)]
        return await asyncio.gather(*asked)

    assert asyncio.run(serve()) == [service.model.ask(picture(), text, max_new_tokens=3) for text in (RED, BIG)]


def test_an_error_in_one_request_leaves_the_next_alone(service, few):
    inputs = service.inputs()
    expected = few(**inputs)
    with pytest.raises(ValueError):
        few(**inputs, num_keep=-1)
    assert torch.equal(few(**inputs), expected)


def test_within_inference_mode_and_after_it(service, few):
    inputs = service.inputs()
    with torch.inference_mode():
        inside = few(**inputs)
    assert torch.equal(few(**inputs), inside)


# ---- ask and chat -----------------------------------------------------------------------------------------------


def test_ask_with_a_path_an_array_and_a_picture(service, tmp_path):
    picture().save(tmp_path / "a.png")
    forms = (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(picture()), picture())
    assert len({str(service.model.ask(one, RED, max_new_tokens=3)) for one in forms}) == 1


def test_ask_with_bytes_of_an_upload(service):
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    upload = Image.open(io.BytesIO(buffer.getvalue()))
    assert service.model.ask(upload, RED, max_new_tokens=3) == service.model.ask(picture(), RED, max_new_tokens=3)


def test_ask_several_questions_with_budgets(service):
    answers = service.model.ask(picture(), [RED, BIG], num_keep=(2, 5), max_new_tokens=3)
    assert [answer.num_kept for answer in answers] == [2, 5]


def test_ask_is_generate(service):
    inputs = service.inputs()
    ids = service.new_ids(service.model.generate(**inputs, **SHORT), inputs)
    expected = service.processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip()
    assert service.model.ask(picture(), RED, max_new_tokens=4).text == expected


def test_an_answer_can_be_logged_and_painted(service, tmp_path):
    answer = service.model.ask(picture(), RED, num_keep=3, max_new_tokens=2)
    assert f"num_kept=3, num_visual={answer.num_visual}" in str(answer)
    assert Image.open(answer.save(tmp_path / "kept.png")).size == answer.overlay().size


def test_a_wrong_upload_says_what_was_expected(service, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png"):
        service.model.ask(tmp_path / "a.png", RED)
    with pytest.raises(TypeError, match="image"):
        service.model.ask(5, RED)


def test_a_conversation_answers_like_its_whole_prompt(service):
    chat = service.model.chat(picture(), num_keep=4, max_new_tokens=3)
    chat.ask(RED)
    answer = chat.ask(BIG)
    inputs = service.inputs(chat.messages[:-1])
    fresh = service.model.generate(**inputs, **{**OUT, "max_new_tokens": 3}, num_keep=4)
    assert torch.equal(answer.keep_masks[0], fresh.keep_masks[0])
    ids = service.new_ids(fresh.sequences, inputs)
    assert answer.text == service.processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def test_two_conversations_at_the_same_time(service):
    def talk(seed: int) -> list[str]:
        chat = service.model.chat(picture(seed), max_new_tokens=3)
        return [chat.ask(question).text for question in (RED, BIG, RED)]

    expected = [talk(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(talk, range(3))) == expected


# ---- being a model ----------------------------------------------------------------------------------------------


def test_a_loaded_model_is_wrapped_and_given_back(service):
    base = AutoModelForImageTextToText.from_pretrained(service.folder, dtype=torch.float32)
    pruned = gp.prune(base, processor=service.processor)
    inputs = service.inputs()
    expected = base.generate(**inputs, **SHORT)
    pruned.generate(**inputs, **SHORT, pruner="divprune", num_keep=2)
    assert gp.unwrap(pruned) is base and torch.equal(base.generate(**inputs, **SHORT), expected)


def test_saved_parts_answer_alike(service, tmp_path):
    again = gp.from_pretrained(service.folder, glimpse=service.model.save_pretrained(tmp_path / "parts"))
    inputs = service.inputs()
    assert same(again.generate(**inputs, **OUT), service.model.generate(**inputs, **OUT))


def test_a_pipeline_becomes_a_pruned_one(service):
    stock = pipeline("image-text-to-text", model=service.base, processor=service.processor)
    pruned = gp.prune(stock)
    how = {"text": message(), "max_new_tokens": 3, "return_full_text": False}
    kept = pruned(**how, generate_kwargs={"pruner": "none", "do_sample": False})
    assert kept == stock(**how, generate_kwargs={"do_sample": False}) and gp.unwrap(pruned) is stock


def test_a_pipeline_around_a_pruned_model(service):
    pipe = pipeline("image-text-to-text", model=service.model, processor=service.processor)
    out = pipe(text=message(), max_new_tokens=3, return_full_text=False, generate_kwargs={"num_keep": 2})
    assert out[0]["generated_text"].strip() == service.model.ask(picture(), RED, num_keep=2, max_new_tokens=3).text


def test_log_likelihood_of_an_answer(service):
    inputs = service.inputs()
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    loss = service.model(**inputs, labels=labels, pruner="none").loss
    torch.testing.assert_close(loss, service.base(**inputs, labels=labels).loss, atol=1e-4, rtol=1e-4)


def test_a_prefill_decoded_twice(service):
    inputs = service.inputs()
    done = service.model.prefill(inputs)
    first, second = (service.model.decode(inputs["input_ids"], done, **SHORT) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(first, service.model.generate(**inputs, **SHORT))


def test_images_seen_once_for_several_methods(service, few):
    inputs = service.inputs()
    seen = service.model.see(inputs, [None, "divprune"])
    for pruner in (None, "divprune"):
        expected = few(**inputs, pruner=pruner, num_keep=3)
        assert torch.equal(few(**inputs, pruner=pruner, num_keep=3, images=seen), expected)


def test_bfloat16(service):
    half = gp.from_pretrained(service.folder, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    out = half.generate(**service.inputs(), **OUT, pruner="divprune", num_keep=2)
    assert out.num_kept == (2,)


def test_copies_and_pickles(service, tmp_path):
    fresh = gp.from_pretrained(service.folder, dtype="float32")
    inputs = service.inputs()
    how = {**OUT, "pruner": "divprune", "num_keep": 2}
    copies = (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh)))
    assert all(same(one.generate(**inputs, **how), fresh.generate(**inputs, **how)) for one in copies)


def test_compiled_layers(service, tmp_path):
    model = gp.from_pretrained(service.folder, dtype="float32")
    inputs, how = service.inputs(), {**OUT, "max_new_tokens": 2, "pruner": "divprune", "num_keep": 2}
    expected = model.generate(**inputs, **how)
    for layer in model.backbone.text_model.layers:
        layer.mlp.compile(backend="eager")
    assert same(model.generate(**inputs, **how), expected)


def test_eight_bit_weights(service):
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    model = gp.from_pretrained(service.folder, quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig()))
    assert type(model.backbone.text_model.layers[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    inputs = service.inputs()
    kept = model.generate(**inputs, **SHORT, pruner="none")
    assert torch.equal(kept, model.base.generate(**inputs, **SHORT))
    assert model.generate(**inputs, **OUT, pruner="divprune", num_keep=2).num_kept == (2,)
