"""Settings of the pretraining of the embedded model (`task: pretrain`)."""

from dataclasses import dataclass, field


@dataclass
class PretrainModelConfig:
    """Sizes of the Qwen2.5-VL-architecture model."""

    hidden_size: int = 192
    intermediate_size: int = 512
    num_layers: int = 6
    num_heads: int = 6
    num_kv_heads: int = 2
    vision_hidden_size: int = 128
    vision_intermediate_size: int = 256
    vision_depth: int = 4
    vision_num_heads: int = 4


@dataclass
class VisionStageConfig:
    """Stage 1: the vision tower alone, with dense heads for every visual token."""

    steps: int = 1500
    batch_size: int = 24
    lr: float = 2e-3


@dataclass
class JointStageConfig:
    """Stage 2: the whole model on grounded questions, several of them packed behind each image."""

    steps: int = 1000
    batch_size: int = 16
    questions_per_scene: int = 6
    lr: float = 2e-3
    vision_lr_factor: float = 0.5  # the tower is already trained
    conjunction_share: float = 0.5  # of the scenes; the others are of kind color
    dense_weight: float = 0.5
    evidence_weight: float = 0.3  # -log(attention mass on the evidence) of the last prompt token ...
    evidence_layer: int = 3  # ... at this decoder layer (0-based)


@dataclass
class PretrainConfig:
    """All settings of `gp.embedded.making.pretrain.run`.

    `ckpt`: None starts afresh; "last" goes on from `<runs_dir>/<name>/last.ckpt`; otherwise a path.
    """

    task: str = "pretrain"
    name: str = "tiny_base"
    runs_dir: str = "runs"
    seed: int = 0
    ckpt: str | None = None
    model: PretrainModelConfig = field(default_factory=PretrainModelConfig)
    vision_stage: VisionStageConfig = field(default_factory=VisionStageConfig)
    joint_stage: JointStageConfig = field(default_factory=JointStageConfig)
    weight_decay: float = 0.02
    max_grad_norm: float = 1.0
    warmup_steps: int = 20
    min_lr_factor: float = 0.02  # of the cosine, at the end of each stage
    num_workers: int = 1  # processes that draw scenes
    log_every_steps: int = 20
    checkpoint_every_steps: int = 100
    val_scenes: int = 64  # of each kind, for the validation at the end and every `val_every_steps`
    val_every_steps: int = 250

    def __post_init__(self):
        if self.model.hidden_size % (16 * self.model.num_heads):
            raise ValueError(
                f"model.hidden_size must be a multiple of 16 * model.num_heads = {16 * self.model.num_heads}, "
                f"got {self.model.hidden_size}"
            )
        if not 0 <= self.joint_stage.evidence_layer < self.model.num_layers:
            raise ValueError(
                f"joint_stage.evidence_layer must be in 0..{self.model.num_layers - 1} (model.num_layers - 1), "
                f"got {self.joint_stage.evidence_layer}"
            )
