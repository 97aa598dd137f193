"""Every option of training and evaluating a glimpse, as data; a YAML file states only what differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from gp.config.option import option

FROM_0 = "[0, inf)"
FROM_1 = "[1, inf)"
ABOVE_0 = "(0, inf)"
SHARE = "[0, 1]"
SEED = "[0, 4294967295]"
DTYPES = ("float32", "bfloat16", "float16")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
FSDP2 = "fsdp2"  # a strategy of ours, see gp.training.sharding
DEVICE_MAPS = ("auto", "balanced", "sequential")
QUANTIZATIONS = ("int8", "int4", "nf4")
LOGGERS = ("tensorboard", "csv", "wandb")
VALIDATION_FIGURES = (
    "val/keep_ratio",
    "val/mask_iou",
    "val/mask_mean_iou",
    "val/mask_precision",
    "val/mask_recall",
    "val/mask_f1",
    "val/evidence_recall",
    "val/answer_accuracy",
    "val/answer_accuracy_unpruned",
    "val/agreement",
)
GATE_FIGURES = ("val/gate_accuracy", "val/gate_auroc", "val/glance_accuracy")  # of task `gate`, which has no others
FIGURES = (*VALIDATION_FIGURES, *GATE_FIGURES)

SCORERS = ("exact_match", "anls", "vqa_accuracy", "relaxed_accuracy", "choice", "containment")
TASKS = ("glimpse", "grpo", "gate", "pretrain", "pretrain_cards")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "bf16", "16", "64")


@dataclass
class ModelConfig:
    """The frozen LVLM."""

    base: str = option(MISSING, 'hub id, folder, or "tiny" (the embedded model)')
    revision: str | None = option(None, "commit, branch or tag of a hub id; null: its main branch")
    adapter: str | None = option(None, "hub id or folder of a LoRA adapter on the base, frozen like it; null: none")
    adapter_revision: str | None = option(None, "commit, branch or tag of the adapter's hub id; null: its main branch")
    dtype: str = option("float32", "type of the frozen weights", choices=DTYPES)
    attn_implementation: str = option("sdpa", "attention kernel", choices=ATTENTIONS)
    device_map: str | None = option(
        None,
        "how the base is spread over all devices of the machine, which one process then has; null: it is on one",
        choices=DEVICE_MAPS,
    )
    quantization: str | None = option(
        None, "of the frozen weights of the base: int8, int4 (torchao) or nf4 (bitsandbytes)", choices=QUANTIZATIONS
    )
    fast_tower: bool = option(
        False, "Qwen: patches embedded by one product, MLPs padded to a width of 128 k on copies of their weights"
    )
    min_pixels: int | None = option(None, "smaller images are enlarged to this; null: as the base says", within=FROM_1)
    max_pixels: int | None = option(None, "larger images are reduced to this; null: as the base says", within=FROM_1)
    do_pad: bool | None = option(None, "LLaVA: pad images to a square, not crop them; null: as the base was saved")


@dataclass
class GlimpseConfig:
    """The learned token and where it is read."""

    num_tokens: int = option(1, "glimpse tokens behind the prompt", within=FROM_1)
    layers: list[int] | None = option(
        None,
        "decoder layers that get a vector of their own, 0 among them; null: all",
        within=FROM_0,
        length=FROM_1,
        distinct=True,
    )
    norm: str = option("rmsnorm", "normalisation of the token's vectors", choices=("rmsnorm", "layernorm"))
    init_from_prompt: bool = option(False, "start the layer-0 vector from the embedding of the last prompt token")
    init_from_glimpse: str | None = option(
        None, "start from the trained parts of this folder, of the same sizes but for the twig; null: from nothing"
    )
    prune_layer: int = option(MISSING, "last decoder layer that sees all tokens, from 0", within=FROM_0)
    read_layers: list[int] | None = option(
        None,
        "decoder layers whose attention is read, up to prune_layer + twig, the last copy among them; null: the last",
        within=FROM_0,
        length=FROM_1,
        distinct=True,
    )
    attention_logits: bool = option(True, "read raw q.k / sqrt(d); false: log-softmax over all keys")
    twig: int = option(
        0, "trainable copies of the layers behind prune_layer that the glimpse is read in; 0: none", within=FROM_0
    )


@dataclass
class VIPConfig:
    """The visual importance predictor."""

    hidden_size: int = option(256, "width", within=FROM_1)
    cond_size: int = option(512, "width of the projected vision features", within=FROM_1)
    num_heads: int = option(4, "attention heads", within=FROM_1)
    taps: list[int] = option(
        MISSING, "vision layers, deepest first; one block each", within=FROM_0, length=FROM_1, distinct=True
    )
    attention: str = option("global", "attention among the visual tokens", choices=("global", "window"))
    deep_supervision: bool = option(False, "train every block's importance, not only the last one's")


@dataclass
class LossConfig:
    """Weights of the loss terms."""

    dice: float = option(1.0, "dice loss of the importance against the evidence", within=FROM_0)
    bce: float = option(0.1, "binary cross-entropy of the same", within=FROM_0)
    answer: float = option(1.0, "answer loss; 0: layers after the last read layer do not run", within=FROM_0)


@dataclass
class PruneConfig:
    """Pruning in validation, evaluation and by default in the saved checkpoint."""

    threshold: float = option(0.5, "a token is kept if its importance is greater", within="[0, 1)")
    max_keep_ratio: float | None = option(None, "upper bound of kept / visual tokens; null: none", within="(0, 1]")
    fixed_keep_ratio: float | None = option(None, "keep this share whatever the threshold says", within="(0, 1]")
    min_kept: int = option(1, "tokens of each prompt, or image, that are always kept", within=FROM_0)
    anchors: list[str] = option(
        [], "grid corners of every image that are always kept", choices=("tl", "tr", "bl", "br"), distinct=True
    )
    budget_scope: str = option("prompt", "what a ratio is counted over", choices=("prompt", "image"))


@dataclass
class DataConfig:
    """Shards: paths or urls with braces (`gqa-{000000..000019}.tar`), paths with wildcards (`gqa-*.tar`), or
    `tiny:SPLIT`, `tiny:SPLIT@ROWSxCOLUMNS` for embedded data; see docs/streaming.md.
    """

    root: str = option("data", "relative paths and the embedded data live below it")
    train: list[str] = option(MISSING, "training shards", length=FROM_1)
    val: list[str] = option(MISSING, "validation shards", length=FROM_1)
    test: dict[str, list[str]] = option(MISSING, "name of a test split -> its shards", length=FROM_1)
    batch_size: int = option(1, "questions per device and micro-batch", within=FROM_1)
    eval_batch_size: int = option(8, "questions per batch of validation and evaluation", within=FROM_1)
    num_workers: int = option(2, "loading processes per device; 0: none", within=FROM_0)
    persistent_workers: bool = option(False, "the processes that load for validation live on until the next one")
    worker_start_method: str | None = option(
        None, "how they are started; null: torch's default", choices=("fork", "spawn", "forkserver")
    )
    shuffle_buffer: int = option(1000, "records per worker to draw from, not decoded; 0: as stored", within=FROM_0)
    bucket_batches: int = option(
        1, "batches' worth of records pooled and cut into batches of similar length; 1: off", within=FROM_1
    )
    max_skipped_fraction: float = option(0.02, "unusable samples tolerated before the run stops", within=SHARE)
    allow_pipes: bool = option(False, "shards may be `pipe:` commands, which reading them runs")


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = option(1e-4, "peak learning rate", within=ABOVE_0)
    glimpse_lr_scale: float = option(1.0, "learning rate of the glimpse token / that of the VIP", within=FROM_0)
    twig_lr_scale: float = option(1.0, "learning rate of the twig / that of the VIP", within=FROM_0)
    weight_decay: float = option(0.0, "weight decay", within=FROM_0)
    betas: list[float] = option([0.9, 0.999], "decay of AdamW's averages", within="[0, 1)", length="[2, 2]")
    warmup_fraction: float = option(0.1, "share of the steps in which the rate rises", within=SHARE)
    final_lr_fraction: float = option(0.0, "learning rate at the end / peak", within=SHARE)
    ema: float | None = option(
        None,
        "decay of the average of the trained parts, which validation, evaluation and export then use; null: none",
        within="(0, 1)",
    )
    max_steps: int | None = option(None, "optimizer steps; either these or epochs", within=FROM_1)
    epochs: float | None = option(None, "passes over data.train, which then needs a manifest", within=ABOVE_0)


@dataclass
class TrainerConfig:
    """The trainer, lightning.Trainer."""

    accelerator: str = option("auto", "kind of device", choices=ACCELERATORS)
    devices: int | str = option("auto", 'number of devices (-1: all), their numbers as in "0,1", or auto')
    num_nodes: int = option(1, "machines", within=FROM_1)
    strategy: str = option("auto", "a name that Lightning knows, e.g. auto or ddp; or fsdp2: docs/large.md")
    precision: str = option("32-true", "of the trained parts and their arithmetic", choices=PRECISIONS)
    accumulate_grad_batches: int = option(1, "micro-batches per optimizer step", within=FROM_1)
    recompute: str = option(
        "auto",
        "glimpse and answer run forward again in the backward pass, to hold no keys; auto: where memory is short",
        choices=("auto", "always", "never"),
    )
    compile: bool = option(
        False, "glimpse and answer run as one compiled graph (torch.compile); one warning where they cannot"
    )
    gradient_clip_val: float | None = option(
        1.0, "norm that gradients are clipped to; null: no clipping", within=ABOVE_0
    )
    max_bad_steps: int = option(
        0, "optimizer steps whose loss or gradient is not finite that are skipped; the next one stops it", within=FROM_0
    )
    log_every: int = option(10, "optimizer steps between points of the curves", within=FROM_1)
    val_pruner: str = option(
        "glimpse", "method that validation prunes by; zoom looks with the glimpse", choices=("glimpse", "zoom")
    )
    val_every: int = option(50, "optimizer steps between validations", within=FROM_1)
    val_before_training: bool = option(False, "validate the whole split once before step 1, too")
    save_every: int = option(
        50, "optimizer steps between writes of last.ckpt; every validation begins with one, too", within=FROM_1
    )
    val_samples: int | None = option(None, "validation questions, drawn from all shards; null: all", within=FROM_1)
    paint_images: int = option(4, "validation images whose kept tokens TensorBoard shows", within=FROM_0)
    best_metric: str | None = option(
        None, "figure by which the best checkpoints are kept, as best-STEP.ckpt; null: none", choices=FIGURES
    )
    best_kept: int = option(1, "best checkpoints that are kept", within=FROM_1)
    stop_metric: str | None = option(
        None, "figure that stops the run when it gets no better; null: none", choices=FIGURES
    )
    stop_patience: int = option(5, "validations without a better figure after which the run stops", within=FROM_1)
    logger: list[str] | str = option(
        "tensorboard", "where curves go, one or several", choices=LOGGERS, length=FROM_1, distinct=True
    )
    extra: dict[str, Any] = option(
        {}, "any other argument of lightning.Trainer, e.g. trainer.extra.limit_val_batches=10"
    )


@dataclass
class EvalConfig:
    """The evaluation by evaluate.py, and at the end of train.py."""

    splits: list[str] = option(["test"], "names in data.test", length=FROM_1, distinct=True)
    pruners: list[str] = option(["none", "glimpse", "random", "oracle"], "pruning methods, or all", length=FROM_1)
    budgets: list[float | None] = option(
        [None],
        "shares of visual entries in the KV cache, mean over layers; null: the method's own decision",
        within="(0, 1]",
        length=FROM_1,
    )
    thresholds: list[float] = option(
        [], "thresholds of glimpse, a row for each beside that of prune.threshold", within="(0, 1)", distinct=True
    )
    methods: dict[str, dict[str, Any]] = option(
        {}, "method -> settings that are not the published ones, e.g. eval.methods.fastv.layer=1"
    )
    scores: list[str] = option(
        ["exact_match"],
        "scorers of answers, the first one is the score of a set; agreement is always exact match",
        choices=SCORERS,
        length=FROM_1,
        distinct=True,
    )
    sets: dict[str, dict[str, Any]] = option(
        {}, "split -> its own suffix (behind each question), scores, max_new_tokens and categories; see configs/bench"
    )
    reference: str = option(
        "none", "row that every other one is compared with: a method (its first row), or METHOD-BUDGET as random-0.111"
    )
    max_new_tokens: int = option(64, "longest answer", within=FROM_1)
    num_samples: int | None = option(None, "questions per split, drawn from all its shards; null: all", within=FROM_1)
    costs: bool = option(True, "measure time and memory of every row, once, on questions of the first split")
    compile_decode: bool = option(
        False, "compile the step that decodes a token: the same answers; the first one waits for the compiler"
    )
    overlays: int = option(8, "example images in the report", within=FROM_0)
    failures: int = option(
        4, "questions whose answer pruning changed, shown with what was kept, per method", within=FROM_0
    )
    after_training: bool = option(True, "train.py evaluates at its end")
    out: str | None = option(None, "folder of the results; null: eval/ in the run, or in parts that lie in none")


@dataclass
class TrainConfig:
    """A glimpse run."""

    task: str = option("glimpse", "what train.py does", choices=TASKS)
    name: str = option(MISSING, "results go to {runs_dir}/{name}")
    runs_dir: str = option("runs", "folder of all runs")
    seed: int = option(0, "seed of every draw", within=SEED)
    ckpt: str | None = option(None, 'resume: "last", a path, or "auto": last.ckpt if there is one, else start')
    overwrite: bool = option(False, "remove the results of a run that is in the folder, and start anew")
    model: ModelConfig = field(default_factory=ModelConfig)
    glimpse: GlimpseConfig = field(default_factory=GlimpseConfig)
    vip: VIPConfig = field(default_factory=VIPConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    prune: PruneConfig = field(default_factory=PruneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
