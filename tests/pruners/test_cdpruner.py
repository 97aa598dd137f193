"""CDPruner against full kernels and their determinants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gp.pruners.cdpruner import CDPruner, greedy_map, question_similarity, scale
from tests.support.views import hand_view, kept

TOKENS = [[1.0, 0.0, 0.2], [0.9, 0.1, 0.3], [0.0, 2.0, 0.1], [0.3, 0.3, 0.3], [-1.0, 0.5, 0.0]]
QUESTION = [[1.0, 1.0, 0.0], [0.0, 3.0, 0.0]]


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def kernel(tokens, question) -> np.ndarray:
    """K_ij = r_i cos_ij r_j, all of it."""
    cosine = (unit(tokens) @ unit(question).T).mean(1)
    r = (cosine - cosine.min() + 1e-6) / (cosine.max() - cosine.min())
    return r[:, None] * (unit(tokens) @ unit(tokens).T) * r[None]


def greedy_by_determinant(k: np.ndarray, count: int) -> list[int]:
    """Each step adds the token with the largest determinant of the subset's kernel."""
    picks: list[int] = []
    while len(picks) < count:
        gains = {j: np.linalg.slogdet(k[np.ix_([*picks, j], [*picks, j])])[1] for j in range(len(k)) if j not in picks}
        picks.append(max(gains, key=gains.get))
    return picks


def test_a_case_by_hand():
    view = hand_view(TOKENS, ratio=0.4, question=QUESTION)
    expected = greedy_by_determinant(kernel(TOKENS, QUESTION), 2)
    # K_22 = 1; then 0.644 - 0.486^2 = 0.41 of token 3 is left, 0.20 of 1, 0.13 of 0
    assert kept(CDPruner(), view) == sorted(expected) == [2, 3]


def test_negated_relevance_is_the_other_end_of_the_scale():
    embeds = torch.nn.functional.normalize(torch.tensor(TOKENS), dim=1)
    cosine = (unit(TOKENS) @ unit(QUESTION).T).mean(1)
    got = question_similarity(hand_view(TOKENS, question=QUESTION), embeds)
    np.testing.assert_allclose(got, cosine, atol=1e-6)
    r = (-cosine + cosine.max() + 1e-6) / (cosine.max() - cosine.min())
    k = r[:, None] * (unit(TOKENS) @ unit(TOKENS).T) * r[None]
    view = hand_view(TOKENS, ratio=0.4, question=QUESTION)
    assert kept(CDPruner(negate=True), view) == sorted(greedy_by_determinant(k, 2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 4, 9])
def test_every_pick_has_the_largest_gain_in_log_determinant(seed, count):
    rng = np.random.default_rng(seed)
    vectors, r = unit(rng.normal(size=(16, 12))), rng.uniform(0.05, 1, 16)
    k = r[:, None] * (vectors @ vectors.T) * r[None]
    picks = greedy_map(torch.tensor(vectors).float(), torch.tensor(r).float(), count).tolist()
    assert picks == greedy_by_determinant(k, count)


def test_more_picks_than_dimensions_and_copies_stay_distinct_and_finite():
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3), dim=1)
    picks = greedy_map(vectors, torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5]), 6).tolist()
    assert picks[:2] == [0, 3] and sorted(picks) == list(range(6))


def test_relevance_is_scaled_within_its_group():
    np.testing.assert_allclose(scale(torch.tensor([0.2, 0.7, 0.45])), [2e-6, 1.0, 0.5], atol=3e-6)
    assert scale(torch.tensor([0.3, 0.3])).tolist() == [1.0, 1.0]
    tokens = TOKENS + [[5 * x for x in token] for token in TOKENS[::-1]]
    together = kept(CDPruner(), hand_view(tokens, [(1, 5), (1, 5)], ratio=0.4, question=QUESTION, scope="image"))
    assert together == [2, 3, 5 + 1, 5 + 2]  # the same tokens the other way round, whatever their lengths


def test_without_text_behind_the_image_all_text_is_the_question():
    view = hand_view(TOKENS, question=QUESTION)
    view.prompt.attention_mask[0, -2:] = False  # the question is gone; the first token, (7, 7, 7), is left
    embeds = torch.nn.functional.normalize(torch.tensor(TOKENS), dim=1)
    np.testing.assert_allclose(question_similarity(view, embeds), unit(TOKENS) @ unit([[1, 1, 1]])[0], atol=1e-6)
