"""Texts that end an answer: looked for in the new tokens alone, row by row."""

import torch

import gp
from gp.integrations.stopping import Until


class Letters:
    """A tokenizer of letters."""

    def batch_decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return ["".join(map(chr, row)) for row in ids.tolist()]


def test_only_new_tokens_of_a_row_count():
    rows = torch.tensor([[*map(ord, text)] for text in ("a\n12", "a\n1\n", "ab#2", "##12")])
    assert Until(Letters(), 2, ["\n", "#"])(rows, None).tolist() == [False, True, True, False]
    assert Until(Letters(), 2, ["1\n"])(rows, None).tolist() == [False, True, False, False]


def test_generation_ends_there():
    """The embedded base says two digits with a space between; the space ends them."""
    model = gp.from_pretrained("tiny")
    messages = [{"role": "user", "content": [{"type": "text", "text": "what number is on the red card ?"}]}]
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = model.processor.apply_chat_template(messages, **how)
    length = inputs["input_ids"].shape[1]
    whole = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, length:]
    digits = model.processor.decode(whole, skip_special_tokens=True).split()
    assert len(digits) == 2
    ended = model.generate(
        **inputs,
        max_new_tokens=4,
        do_sample=False,
        stopping_criteria=[Until(model.processor.tokenizer, length, [digits[0]])],
    )
    assert ended[0, length:].tolist() == whole[:1].tolist()
