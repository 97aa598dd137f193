"""Model arguments of lmms-eval: each goes where it belongs, and none is dropped without a word."""

import pytest

from gp.integrations.lmms_arguments import ModelArguments, read_arguments


def test_each_goes_to_who_takes_it():
    given = {
        "base": "tiny",
        "glimpse": "tiny",
        "pruner": "fastv",
        "layer": 2,
        "compact_cache": True,
        "budget": 0.111,
        "anchors": '["tl", "br"]',
        "dtype": "bfloat16",
        "attn_implementation": "eager",
        "min_pixels": 200704,
        "max_pixels": 1605632,
        "seed": 7,
    }
    assert read_arguments(given) == ModelArguments(
        "tiny",
        {
            "glimpse": "tiny",
            "dtype": "bfloat16",
            "attn_implementation": "eager",
            "min_pixels": 200704,
            "max_pixels": 1605632,
        },
        "fastv",
        {"budget": 0.111, "anchors": ["tl", "br"]},
        {"layer": 2, "compact_cache": True},
        seed=7,
    )


def test_none_is_a_method_and_elsewhere_nothing():
    found = read_arguments({"base": "tiny", "glimpse": "none", "pruner": "none", "budget": "null", "revision": 7})
    assert (found.pruner, found.loading, found.options) == (
        "none",
        {"glimpse": None, "revision": "7"},
        {"budget": None},
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "expected base="),
        ({"pretrained": "tiny"}, "pretrained=... is not taken; the base's hub id or folder is base="),
        ({"base": "tiny", "treshold": 0.4}, "unknown argument 'treshold'; the nearest known one is 'threshold'"),
        ({"base": "tiny", "layer": 2}, "unknown argument 'layer'"),  # of fastv, which is not asked for
        ({"base": "tiny", "pruner": "fastvv"}, "no pruner 'fastvv'; the nearest known one is 'fastv'"),
        ({"base": "tiny", "pruner": "oracle"}, "evaluate.py has them"),
        ({"base": "tiny", "anchors": "[tl]"}, r"anchors: expected JSON, got '\[tl\]'"),
        ({"base": "tiny", "token": "hf_secret"}, "arguments are printed and stored"),
    ],
)
def test_bad_arguments_are_named(given, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_arguments(given)
    assert "hf_secret" not in str(caught.value)
