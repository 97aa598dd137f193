"""Every option of training and evaluating a glimpse, with its default; a YAML file states only what differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class ModelConfig:
    """The frozen LVLM."""

    base: str = MISSING  # hub id, folder, or "tiny" (the embedded model)
    revision: str | None = None
    dtype: str = "float32"  # float32, bfloat16, float16
    attn_implementation: str = "sdpa"  # eager, sdpa, flash_attention_2, flash_attention_3
    min_pixels: int | None = None  # None: the base's own image processor settings
    max_pixels: int | None = None
    do_pad: bool | None = None  # LLaVA: pad images to a square, not crop them; None: as the base was saved


@dataclass
class GlimpseConfig:
    """The learned token and where it is read (DESIGN: glimpse token, glimpse attention)."""

    num_tokens: int = 1
    layers: list[int] | None = None  # decoder layers that get a vector of their own; None: all
    norm: str = "rmsnorm"  # rmsnorm, layernorm
    init_from_prompt: bool = False  # start the layer-0 vector from the embedding of the last prompt token
    prune_layer: int = MISSING  # 0-based, the last layer that sees all tokens
    read_layers: list[int] | None = None  # None: the prune layer
    attention_logits: bool = True  # raw q.k / sqrt(d); false: log-softmax over all keys


@dataclass
class VIPConfig:
    """Size of the visual importance predictor."""

    hidden_size: int = 256
    cond_size: int = 512
    num_heads: int = 4
    taps: list[int] = MISSING  # vision layers, deepest first; one VIP block each
    attention: str = "global"  # global, window
    deep_supervision: bool = False


@dataclass
class LossConfig:
    """Weights of the loss terms; without the answer's, layers after the last read layer do not run."""

    dice: float = 1.0
    bce: float = 0.1
    answer: float = 1.0


@dataclass
class PruneConfig:
    """Default `gp.PruneOptions` of validation, evaluation and the saved checkpoint."""

    threshold: float = 0.5
    max_keep_ratio: float | None = None
    fixed_keep_ratio: float | None = None
    min_kept: int = 1
    anchors: list[str] = field(default_factory=list)
    budget_scope: str = "prompt"


@dataclass
class DataConfig:
    """Shards: paths or urls with braces ("gqa-{000000..000019}.tar"), paths with wildcards ("gqa-*.tar"), or
    "tiny:SPLIT" for the embedded data; see docs/streaming.md.
    """

    root: str = "shards"  # relative paths and the embedded data live below it
    train: list[str] = MISSING
    val: list[str] = MISSING
    test: dict[str, list[str]] = MISSING  # split name -> shards
    batch_size: int = 1  # per device
    eval_batch_size: int = 8
    num_workers: int = 2
    worker_start_method: str | None = None  # fork, spawn, forkserver; None: torch's default
    shuffle_buffer: int = 1000  # records a worker, not decoded
    bucket_batches: int = 1  # batches' worth of records that are pooled and cut into batches of similar length; 1: off
    max_skipped_fraction: float = 0.02  # unusable samples tolerated before the run stops


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-4
    glimpse_lr_scale: float = 1.0  # learning rate of the glimpse token relative to the VIP's
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    warmup_fraction: float = 0.1
    final_lr_fraction: float = 0.0
    max_steps: int | None = None  # optimizer steps; either these ...
    epochs: float | None = None  # ... or passes over data.train, which then needs a manifest; may be a fraction


@dataclass
class TrainerConfig:
    """What goes to lightning.Trainer."""

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    log_every: int = 10  # optimizer steps between TensorBoard points
    val_every: int = 50  # optimizer steps between validations
    save_every: int = 50  # optimizer steps between writes of last.ckpt, which every validation begins with too
    val_samples: int | None = None  # None: the whole validation split
    paint_images: int = 4  # validation images whose kept tokens are painted in TensorBoard


@dataclass
class EvalConfig:
    """What evaluate.py runs, and what train.py runs at its end."""

    splits: list[str] = field(default_factory=lambda: ["test"])
    pruners: list[str] = field(default_factory=lambda: ["none", "glimpse", "random", "oracle"])
    # shares of visual entries in the KV cache, mean over layers; null: the method's own decision
    budgets: list[float | None] = field(default_factory=lambda: [None])
    # pruner -> its settings, where they are not the published ones: eval.methods.fastv.layer=1
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_new_tokens: int = 64
    num_samples: int | None = None  # None: the whole split
    overlays: int = 8  # example images in the report
    after_training: bool = True
    out: str | None = None  # None: eval/ beside the checkpoint


@dataclass
class TrainConfig:
    """Root of a glimpse run."""

    task: str = "glimpse"
    name: str = MISSING  # results go to {runs_dir}/{name}
    runs_dir: str = "runs"
    seed: int = 0
    ckpt: str | None = None  # resume: "last", or a path
    model: ModelConfig = field(default_factory=ModelConfig)
    glimpse: GlimpseConfig = field(default_factory=GlimpseConfig)
    vip: VIPConfig = field(default_factory=VIPConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    prune: PruneConfig = field(default_factory=PruneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
