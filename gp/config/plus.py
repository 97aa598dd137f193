"""Options of the task `grpo`: a LoRA adapter learns to answer from what pruning keeps, by reinforcement."""

from __future__ import annotations

from dataclasses import dataclass, field

from gp.config.judge import JudgeConfig
from gp.config.option import option
from gp.config.schema import ABOVE_0, FROM_0, FROM_1, SHARE, TrainConfig

REWARDS = ("exact", "anls", "judge")  # keys of `gp.training.grpo.rewards.REWARDS`


@dataclass
class AdapterConfig:
    """The LoRA adapter on the matrices of every decoder layer."""

    rank: int = option(32, "rank of the adapter", within=FROM_1)
    alpha: int = option(64, "it counts alpha / rank times", within=FROM_1)


@dataclass
class PlusLossConfig:
    """The loss: policy gradient, and the distance from the base without adapter."""

    kl: float = option(0.04, "weight of the KL divergence; 0: the base without adapter does not run", within=FROM_0)
    aggregation: str = option(
        "sequence", "mean of each answer's mean over tokens, or mean over all tokens", choices=("sequence", "token")
    )


@dataclass
class AdvantageConfig:
    """What a reward is worth within the answers to one question."""

    scale: str = option("std", "what the distance from the mean is divided by", choices=("std", "none"))


@dataclass
class RewardConfig:
    """What an answer is rewarded for."""

    weights: dict[str, float] = option(
        {"exact": 1.0}, f"reward ({', '.join(REWARDS)}) -> its weight in the sum, 0: off", within=FROM_0
    )


@dataclass
class RewardJudgeConfig(JudgeConfig):
    """The LLM of the reward `judge`, behind any OpenAI-compatible endpoint; not asked where that has no weight."""

    # type: ignore, because these two may stay unset here; `gp.config.contradictions` asks for them where they are needed
    base_url: str | None = option(None, "the endpoint, e.g. http://localhost:8000/v1")  # type: ignore[assignment]
    model: str | None = option(None, "the judge, as the endpoint names it")  # type: ignore[assignment]
    cache: str | None = option(None, "folder of the replies, which several runs may share; null: in the run's folder")
    patience_s: float = option(
        300.0, "seconds that a step waits for a judge that is away, repeats included; then the run ends", within=FROM_0
    )


@dataclass
class GrpoConfig:
    """How answers are drawn."""

    group_size: int = option(4, "answers to each question", within="[2, inf)")
    mask: str = option("boxes", "what is kept while answers are drawn", choices=("boxes", "glimpse", "mixed"))
    boxes_share: float = option(0.5, "mixed: share of the questions that keep their boxes", within=SHARE)
    budgets: list[float | None] = option(
        [None],
        "shares of visual tokens that the glimpse keeps, for each question one of them by lot; null: its own decision",
        within="(0, 1]",
        length=FROM_1,
    )
    glimpse: str | None = option(None, "folder or hub id of a trained glimpse, which stays as it is; null: none")
    glimpse_revision: str | None = option(None, "commit, branch or tag of its hub id; null: its main branch")
    max_new_tokens: int = option(128, "longest answer", within=FROM_1)
    temperature: float = option(1.0, "of the draw", within=ABOVE_0)
    prefix_gradients: bool = option(True, "gradients through the whole prompt; false: its last token and the answer")
    show_rollouts: int = option(2, "questions of a step whose answers TensorBoard shows as text", within=FROM_0)


@dataclass
class PlusConfig(TrainConfig):
    """A run of GlimpsePrune+."""

    loss: PlusLossConfig = field(default_factory=PlusLossConfig)  # type: ignore[assignment]
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    judge: RewardJudgeConfig = field(default_factory=RewardJudgeConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
