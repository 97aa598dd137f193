"""What users may ask of the plug-in, and what they are told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gp.integrations.vllm.settings import KEY, Settings, of_engine, of_request


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"method": "fastv"},
            "method must be one of none, random, downsample, divprune, visionzip, glimpse, got 'fastv'",
        ),
        ({"method": "glimpse"}, "method 'glimpse' needs trained parts"),
        ({"method": "none", "glimpse": 3}, "glimpse must be a folder, a hub id or 'tiny', got 3"),
        ({"method": "divprune", "budget": 0}, r"budget must be in \(0, 1\], got 0"),
        ({"method": "divprune", "budget": True}, r"budget must be in \(0, 1\], got True"),
        ({"method": "random", "seed": -1}, "seed must be a whole number in 0.*, got -1"),
        ({"budgte": 0.1}, "hf_overrides: visual_pruning has no 'budgte'; the nearest known one is 'budget'"),
        ("divprune", "hf_overrides: visual_pruning must be a mapping .*, got 'divprune'"),
        (None, "hf_overrides: visual_pruning is missing"),
    ],
)
def test_wrong_settings_name_the_key(given, said):
    with pytest.raises(ValueError, match=said):
        of_engine(SimpleNamespace(**{KEY: given}))


def test_a_request_overrides_the_engine_and_leaves_the_rest():
    engine = Settings("divprune", 0.1, seed=3)
    kwargs = {KEY: {"budget": 0.5}, "max_pixels": 100}
    assert of_request(engine, kwargs) == (Settings("divprune", 0.5, seed=3), {"max_pixels": 100})
    assert KEY in kwargs  # the request's own stays as it is
    assert of_request(engine, {}) == (engine, {})
    with pytest.raises(ValueError, match="mm_processor_kwargs: visual_pruning has no 'ratio'"):
        of_request(engine, {KEY: {"ratio": 0.5}})
    with pytest.raises(ValueError, match="glimpse is the engine's"):
        of_request(engine, {KEY: {"glimpse": "tiny"}})


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (Settings("divprune", 0.111), 28),
        (Settings("divprune", 0.0001), 1),  # never none
        (Settings("visionzip", 0.29), 74),
        (Settings("none", 0.5), 256),
    ],
)
def test_counts(settings, count):
    assert settings.count(16, 16) == count
