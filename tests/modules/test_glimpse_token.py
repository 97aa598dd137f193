"""The glimpse token's vectors against the formula g_i = norm(W E_i + b), written out."""

from __future__ import annotations

import pytest
import torch

from gp.modules.glimpse_token import GlimpseToken


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_vectors_are_the_norm_of_the_projection(norm):
    torch.manual_seed(0)
    token = GlimpseToken(6, layers=[2, 0], num_tokens=3, norm=norm, eps=1e-5)
    projected = torch.einsum("ltd,ed->lte", token.embeddings, token.proj.weight) + token.proj.bias
    if norm == "layernorm":
        projected = projected - projected.mean(-1, keepdim=True)
    expected = projected / (projected.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    by_layer = token.by_layer()
    assert list(by_layer) == [2, 0] and by_layer[0].shape == (3, 6)
    torch.testing.assert_close(torch.stack([by_layer[2], by_layer[0]]), expected)


def test_it_starts_as_the_embedding_it_is_given():
    torch.manual_seed(0)
    token, embedding = GlimpseToken(64, layers=[0, 1]), 0.02 * torch.randn(64)
    other = token.embeddings[1].clone()
    token.start_from(embedding)
    torch.testing.assert_close(token.by_layer()[0][0], embedding, atol=1e-4, rtol=1e-2)
    assert torch.equal(token.embeddings[1], other)


@pytest.mark.parametrize(("changes", "named"), [({"layers": [1, 2]}, r"\[1, 2\]"), ({"norm": "none"}, "'none'")])
def test_what_cannot_be_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        GlimpseToken(**{"hidden_size": 4, "layers": [0], **changes})
