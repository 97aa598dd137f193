"""Judging the embedded model's answer."""

from __future__ import annotations

import pytest

from gp.answer import Answer
from gp.doctor import question
from gp.doctor.report import OK, PROBLEM
from gp.embedded.making.scenes import Question


@pytest.mark.parametrize(
    ("text", "num_kept", "status"), [("4 6", 4, OK), ("4 7", 4, PROBLEM), ("", 4, PROBLEM), ("4 6", 64, PROBLEM)]
)
def test_an_answer_is_judged(text, num_kept, status):
    asked = Question("what number is on the red card ?", "4 6", (), "color")
    assert question.judge(asked, Answer(text, (), num_kept, 64), 0.1, 0.1).status == status
