"""Settings of the pretraining of the embedded model (`task: pretrain`)."""

from dataclasses import dataclass, field

from gp.config.option import option
from gp.config.schema import ABOVE_0, FROM_0, FROM_1, SEED, SHARE


@dataclass
class PretrainModelConfig:
    """Sizes of the Qwen2.5-VL-architecture model."""

    hidden_size: int = option(192, "width of the LLM", within=FROM_1)
    intermediate_size: int = option(512, "width inside its feed-forward blocks", within=FROM_1)
    num_layers: int = option(6, "decoder layers", within=FROM_1)
    num_heads: int = option(6, "attention heads", within=FROM_1)
    num_kv_heads: int = option(2, "heads of keys and values", within=FROM_1)
    vision_hidden_size: int = option(128, "width of the vision tower", within=FROM_1)
    vision_intermediate_size: int = option(256, "width inside its feed-forward blocks", within=FROM_1)
    vision_depth: int = option(4, "vision blocks", within=FROM_1)
    vision_num_heads: int = option(4, "attention heads of the vision tower", within=FROM_1)


@dataclass
class VisionStageConfig:
    """Stage 1: the vision tower alone, with dense heads for every visual token."""

    steps: int = option(1500, "optimizer steps", within=FROM_0)
    batch_size: int = option(24, "scenes per step", within=FROM_1)
    lr: float = option(2e-3, "peak learning rate", within=ABOVE_0)


@dataclass
class JointStageConfig:
    """Stage 2: the whole model on grounded questions, several of them packed behind each image."""

    steps: int = option(1000, "optimizer steps", within=FROM_0)
    batch_size: int = option(16, "scenes per step", within=FROM_1)
    questions_per_scene: int = option(6, "questions packed behind each image", within=FROM_1)
    lr: float = option(2e-3, "peak learning rate", within=ABOVE_0)
    vision_lr_factor: float = option(0.5, "learning rate of the tower, already trained, / lr", within=FROM_0)
    conjunction_share: float = option(0.5, "share of scenes of kind conjunction; the others: color", within=SHARE)
    dense_weight: float = option(0.5, "weight of the dense heads' loss", within=FROM_0)
    evidence_weight: float = option(
        0.3, "weight of -log(attention mass on the evidence) of the last prompt token", within=FROM_0
    )
    evidence_layer: int = option(3, "decoder layer of that attention, from 0", within=FROM_0)


@dataclass
class PretrainConfig:
    """The pretraining of the embedded model (`task: pretrain`)."""

    task: str = option("pretrain", "what train.py does", choices=("glimpse", "pretrain", "pretrain_cards"))
    name: str = option("tiny_seed", "results go to {runs_dir}/{name}")
    runs_dir: str = option("runs", "folder of all runs")
    seed: int = option(0, "seed of every draw", within=SEED)
    ckpt: str | None = option(None, 'resume: "last", a path, or "auto": last.ckpt if there is one, else start')
    overwrite: bool = option(False, "remove the results of a run that is in the folder, and start anew")
    model: PretrainModelConfig = field(default_factory=PretrainModelConfig)
    vision_stage: VisionStageConfig = field(default_factory=VisionStageConfig)
    joint_stage: JointStageConfig = field(default_factory=JointStageConfig)
    weight_decay: float = option(0.02, "weight decay", within=FROM_0)
    max_grad_norm: float = option(1.0, "norm that gradients are clipped to", within=ABOVE_0)
    warmup_steps: int = option(20, "optimizer steps in which the rate rises, in each stage", within=FROM_0)
    min_lr_factor: float = option(0.02, "learning rate at the end of each stage / peak", within=SHARE)
    num_workers: int = option(1, "processes that draw scenes", within=FROM_0)
    log_every_steps: int = option(20, "optimizer steps between lines of the log", within=FROM_1)
    checkpoint_every_steps: int = option(100, "optimizer steps between writes of last.ckpt", within=FROM_1)
    val_scenes: int = option(64, "validation scenes of each kind", within=FROM_1)
    val_every_steps: int = option(250, "optimizer steps between validations", within=FROM_1)

    def __post_init__(self):
        sizes, last = self.model, self.model.num_layers - 1
        for width, heads, per_head in (
            ("hidden_size", "num_heads", 16),
            ("num_heads", "num_kv_heads", 1),
            ("vision_hidden_size", "vision_num_heads", 4),
        ):
            value, unit = getattr(sizes, width), per_head * getattr(sizes, heads)
            if value % unit:
                raise ValueError(
                    f"model.{width} must be a multiple of {per_head} * model.{heads} = {unit}, got {value}"
                )
        if not 0 <= self.joint_stage.evidence_layer <= last:
            raise ValueError(
                f"joint_stage.evidence_layer must be in 0..{last} (model.num_layers - 1), "
                f"got {self.joint_stage.evidence_layer}"
            )
