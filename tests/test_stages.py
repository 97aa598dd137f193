"""Errors that name their stage."""

from __future__ import annotations

import pytest

from gp.stages import StageFailed, stage


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("optim.lr must be a number"), ValueError, r"^train: optim\.lr must be a number \(--traceback"),
        (FileNotFoundError("no a.tar"), OSError, r"^train: no a\.tar \(--traceback"),
        (KeyError("x"), StageFailed, r"^train: KeyError: 'x' \(the traceback above"),
    ],
)
def test_a_mistake_keeps_its_kind_and_anything_else_becomes_a_failure(raised, kind, text):
    with pytest.raises(kind, match=text) as caught, stage("train"):
        raise raised
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [ValueError("no"), KeyError("x")])
def test_stages_within_stages_say_once_where_to_look(raised):
    with pytest.raises((ValueError, StageFailed), match=r"^outer: inner: ") as caught, stage("outer"), stage("inner"):
        raise raised
    assert str(caught.value).count("traceback") == 1
