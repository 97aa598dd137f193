"""Pieces of an answer put together are the answer, and nothing is sent that would have to be taken back."""

from __future__ import annotations

from random import Random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gp.embedded import BASE_DIR
from gp.serve.growing_text import GrowingText


@pytest.fixture(scope="module")
def by_bytes():
    """A token is a byte: most characters of the text take several."""
    inner = Tokenizer(models.BPE({c: k for k, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def pieces_of(text, tokenizer, stops=()):
    growing, sent = GrowingText(tokenizer, stops), []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        sent.append(growing.add(token))
        if growing.stopped:
            break
    whole, rest = growing.end()
    assert "".join(sent) + rest == whole
    return whole, sent


def test_characters_of_several_bytes(by_bytes):
    whole, sent = pieces_of("  héé 漢字 🙂 ", by_bytes)
    assert whole == "héé 漢字 🙂"
    assert [one for one in sent if one] == ["h", "é", "é", " 漢", "字", " 🙂"]


def test_words_that_a_tokenizer_puts_spaces_between():
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    words = [token for token in tokenizer.get_vocab() if token.isalnum()]
    rng = Random(0)
    for _ in range(20):
        ids = tokenizer.convert_tokens_to_ids(rng.choices(words, k=12))
        growing = GrowingText(tokenizer)
        sent = "".join(growing.add(one) for one in ids)
        assert sent == growing.end()[0] == tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_stop_texts(by_bytes):
    assert pieces_of("one two END three", by_bytes, ["END"]) == (
        "one two",
        pieces_of("one two ", by_bytes)[1] + ["", "", ""],
    )
    whole, sent = pieces_of("a E EN ENx", by_bytes, ["END"])
    assert whole == "a E EN ENx" and not any("E" in one and "END".startswith(one.strip()) for one in sent[:2])
    assert pieces_of("END", by_bytes, ["END", "N"])[0] == "E"


def test_a_broken_character_at_the_end(by_bytes):
    growing = GrowingText(by_bytes)
    sent = [growing.add(one) for one in by_bytes("a🙂")["input_ids"][:-1]]
    whole, rest = growing.end()
    assert "".join(sent) == "a" and whole == by_bytes.decode(growing.ids) and "a" + rest == whole
