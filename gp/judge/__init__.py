"""A judge: an LLM behind an OpenAI-compatible endpoint that scores answers; of evaluations, and as a reward.

protocols.py   what it is asked, how its reply is read
replies.py     replies on disk, by what was asked
endpoint.py    one question to the endpoint
errors.py      what its errors mean
judging.py     many questions: `Judge`, `judge_cases`
"""

from gp.judge.judging import Judge, Verdict, judge_cases
from gp.judge.protocols import Case
from gp.judge.replies import Replies

__all__ = ["Case", "Judge", "Replies", "Verdict", "judge_cases"]
