"""Settings of the pretraining of the embedded base (`task: pretrain_cards`)."""

from dataclasses import dataclass, field

from gp.config.option import option
from gp.config.schema import ABOVE_0, FROM_0, FROM_1, SEED, SHARE


@dataclass
class TowerStageConfig:
    """Stage 1: the vision tower alone, with dense heads on every visual token."""

    steps: int = option(2000, "optimizer steps", within=FROM_0)
    lr: float = option(1.5e-3, "peak learning rate", within=ABOVE_0)
    heads_only: bool = option(False, "train the heads alone, where the tower that goes on can read already")


@dataclass
class JointStageConfig:
    """Stage 2: the whole model on grounded questions, several of them packed behind the same images."""

    steps: int = option(4450, "optimizer steps", within=FROM_0)
    early_share: float = option(
        0.8, "share of the steps that ask mostly what is learned late; the others mostly read numbers", within=SHARE
    )
    lr: float = option(2e-3, "peak learning rate", within=ABOVE_0)
    vision_lr_factor: float = option(0.5, "learning rate of the tower, already trained, / lr", within=FROM_0)
    tower_every: int = option(8, "one batch in so many is the tower's own; 0: none", within=FROM_0)
    dense_weight: float = option(0.5, "weight of the dense heads' loss", within=FROM_0)
    evidence_weight: float = option(
        1.0, "weight of -log(attention mass on the evidence) of the last prompt token", within=FROM_0
    )
    place_weight: float = option(
        0.3, "weight of the squared error of the places that visual tokens tell at that layer", within=FROM_0
    )
    asked_weight: float = option(
        0.3,
        "weight of -log(probability) of the words asked for, as the last prompt token tells",
        within=FROM_0,
    )
    found_weight: float = option(
        2.0, "weight of the error of places and shapes of the cards looked at, as that token tells then", within=FROM_0
    )
    words_weight: float = option(
        0.0,
        "weight of -log(attention on the two digits or colours asked for), one layer before that of the evidence",
        within=FROM_0,
    )
    chain_weight: float = option(
        0.0, "weight of the terms by which cards of a colour are counted, layer by layer", within=FROM_0
    )
    evidence_layer: int = option(5, "decoder layer of that attention, from 0", within=FROM_0)
    evidence_share: float = option(0.95, "share of the steps with that term", within=SHARE)
    large_share: float = option(0.0, "share of the scenes most of whose cards are made large", within=SHARE)


@dataclass
class FinalStageConfig(JointStageConfig):
    """Stage 3: as the joint one, from its weights, with a learning rate of its own and more of what is learned last."""

    steps: int = option(4000, "optimizer steps", within=FROM_0)
    early_share: float = option(
        0.66, "share of the steps that ask mostly what is learned late; the others mostly read numbers", within=SHARE
    )
    lr: float = option(1.5e-3, "peak learning rate", within=ABOVE_0)
    vision_lr_factor: float = option(0.7, "learning rate of the tower / lr", within=FROM_0)
    place_weight: float = option(
        1.0, "weight of the squared error of the places that visual tokens tell at that layer", within=FROM_0
    )
    asked_weight: float = option(
        1.0, "weight of -log(probability) of the words asked for, as the last prompt token tells", within=FROM_0
    )
    words_weight: float = option(
        0.5,
        "weight of -log(attention on the two digits or colours asked for), one layer before that of the evidence",
        within=FROM_0,
    )
    chain_weight: float = option(
        3.0, "weight of the terms by which cards of a colour are counted, layer by layer", within=FROM_0
    )
    tower_every: int = option(3, "one batch in so many is the tower's own; 0: none", within=FROM_0)
    large_share: float = option(0.3, "share of the scenes most of whose cards are made large", within=SHARE)


@dataclass
class CountStageConfig(FinalStageConfig):
    """Stage 4: as the final one, from its weights, most of it with what was learned last: counting."""

    steps: int = option(0, "optimizer steps; 0: the stage is left out", within=FROM_0)
    lr: float = option(1e-3, "peak learning rate", within=ABOVE_0)
    early_share: float = option(
        0.6, "share of the steps that mostly count; the others count less and read more", within=SHARE
    )
    tower_every: int = option(8, "one batch in so many is the tower's own; 0: none", within=FROM_0)
    blend: float = option(
        1.0, "share of its weights in the mean with those before the stage, which is the result", within="(0, 1]"
    )


@dataclass
class CardsPretrainConfig:
    """The pretraining of the embedded base (`task: pretrain_cards`)."""

    task: str = option("pretrain_cards", "what train.py does", choices=("glimpse", "pretrain", "pretrain_cards"))
    name: str = option("tiny_base", "results go to {runs_dir}/{name}")
    runs_dir: str = option("runs", "folder of all runs")
    seed: int = option(0, "seed of every draw", within=SEED)
    ckpt: str | None = option(
        None, 'resume: "last" or "auto": the newest checkpoint if there is one, else start', choices=("last", "auto")
    )
    overwrite: bool = option(False, "remove the results of a run that is in the folder, and start anew")
    init: str = option(
        "runs/tiny_seed/base",
        'base to go on from: a folder (of configs/tiny_seed.yaml), or "tiny"; one that has grown stays as it is',
    )
    tower_stage: TowerStageConfig = field(default_factory=TowerStageConfig)
    joint_stage: JointStageConfig = field(default_factory=JointStageConfig)
    final_stage: FinalStageConfig = field(default_factory=FinalStageConfig)
    count_stage: CountStageConfig = field(default_factory=CountStageConfig)
    weight_decay: float = option(0.02, "weight decay", within=FROM_0)
    max_grad_norm: float = option(1.0, "norm that gradients are clipped to", within=ABOVE_0)
    warmup_steps: int = option(20, "optimizer steps in which the rate rises, in each stage", within=FROM_0)
    min_lr_factor: float = option(0.015, "learning rate at the end of each stage / peak", within=SHARE)
    num_threads: int = option(1, "threads of the training process", within=FROM_1)
    num_workers: int = option(1, "processes that draw scenes", within=FROM_0)
    log_every_steps: int = option(20, "optimizer steps between lines of the log", within=FROM_1)
    checkpoint_every_steps: int = option(200, "optimizer steps between checkpoints", within=FROM_1)
    val_batches: int = option(6, "validation batches of each kind", within=FROM_1)
    val_every_steps: int = option(450, "optimizer steps between validations", within=FROM_1)
