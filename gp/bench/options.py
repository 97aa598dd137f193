"""Options that the benches share, and what follows from them: a model and a batch, or a clear refusal."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gp.bench.presets import PRESETS, TEXT_AROUND_IMAGE, Preset, random_model
from gp.model import GlimpseModel
from gp.types import PruneOptions

DTYPES = ("float32", "bfloat16", "float16")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
WORKLOAD = {
    "visual": "visual tokens of each image",
    "text": "other tokens of a prompt",
    "answer": "answer tokens in training",
    "batch": "prompts",
    "prune_layer": "last decoder layer that sees all tokens, from 0",
}


class OptionError(ValueError):
    """An option that cannot be; `python -m gp.bench` prints it in one line and exits with status 2."""


@dataclass(frozen=True)
class Setup:
    """What a bench measures and where."""

    preset: Preset
    device: str
    dtype: torch.dtype
    attn: str
    keep_ratio: float
    repeats: int
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        return command_line(self.arguments)

    @property
    def kept(self) -> int:
        """Visual tokens kept of each prompt."""
        return int(self.keep_ratio * self.preset.visual)

    @property
    def prune_options(self) -> PruneOptions:
        return PruneOptions(fixed_keep_ratio=self.keep_ratio, min_kept=0)

    def model(self, training: bool = False) -> GlimpseModel:
        """The preset's model on the device.

        Args:
            training: the trained parts stay float32 (training casts as it goes); else they have the base's type.

        Raises:
            OptionError: an attention kernel that is not installed.
        """
        try:
            model = random_model(self.preset, self.device, self.dtype, self.attn).train(training)
            model.glimpse.to(torch.float32 if training else self.dtype)
            return model
        except ImportError as error:
            raise OptionError(f"--attn {self.attn}: {str(error).splitlines()[0]}") from error


def add_arguments(
    parser: argparse.ArgumentParser, workload: Sequence[str], keep_ratio: bool = True, attn: bool = True
) -> None:
    """Adds the shared options.

    Args:
        workload: which numbers of the preset can be changed.
        keep_ratio: whether anything is pruned here.
        attn: whether one attention kernel is chosen.
    """
    parser.add_argument("--preset", default="mid", help=f"size of the model: {', '.join(PRESETS)} (mid)")
    for name in workload:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{WORKLOAD[name]} (the preset's)")
    if keep_ratio:
        parser.add_argument("--keep-ratio", type=float, default=0.1, help="kept / visual tokens, in (0, 1] (0.1)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")
    parser.add_argument("--dtype", help="of the frozen model: float32, bfloat16, float16 (the preset's)")
    if attn:
        parser.add_argument("--attn", default="sdpa", help=f"attention kernel: {', '.join(ATTENTIONS)} (sdpa)")
    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here")


def command_line(arguments: Sequence[str]) -> str:
    """The command that repeats a measurement; where its results were written to does not matter."""
    outputs = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_output_arguments(outputs)
    _, rest = outputs.parse_known_args(list(arguments))
    return shlex.join(["python", "-m", "gp.bench", *rest])


def read_setup(options: argparse.Namespace) -> Setup:
    """Checks the shared options against each other and against this machine.

    Raises:
        OptionError: naming the option, what was expected and what came.
    """
    preset = read_preset(options)
    check_choice("--attn", options.attn, ATTENTIONS)
    dtype = options.dtype or preset.dtype
    check_choice("--dtype", dtype, DTYPES)
    keep_ratio = getattr(options, "keep_ratio", 1.0)
    if not 0 < keep_ratio <= 1 or int(keep_ratio * preset.visual) < 1:
        raise OptionError(f"--keep-ratio must keep at least 1 of {preset.visual} tokens and at most all: {keep_ratio}")
    if options.repeats < 1:
        raise OptionError(f"--repeats must be at least 1, got {options.repeats}")
    _check_device(options.device, options.attn, dtype)
    return Setup(
        preset=preset,
        device=options.device,
        dtype=getattr(torch, dtype),
        attn=options.attn,
        keep_ratio=keep_ratio,
        repeats=options.repeats,
        arguments=tuple(options.arguments),
    )


def read_preset(options: argparse.Namespace) -> Preset:
    """The named preset with the numbers that the command line changes; OptionError if that cannot be."""
    check_choice("--preset", options.preset, PRESETS)
    preset = PRESETS[options.preset]
    changes = {name: getattr(options, name, None) for name in WORKLOAD}
    preset = replace(preset, **{name: value for name, value in changes.items() if value is not None})
    for name in ("visual", "answer", "batch"):
        if getattr(preset, name) < 1:
            raise OptionError(f"--{name} must be at least 1, got {getattr(preset, name)}")
    if preset.text <= TEXT_AROUND_IMAGE:
        raise OptionError(f"--text must be more than the {TEXT_AROUND_IMAGE} tokens around an image: {preset.text}")
    if not 0 <= preset.prune_layer < preset.layers:
        raise OptionError(f"--prune-layer must be in 0..{preset.layers - 1}, got {preset.prune_layer}")
    return preset


def _check_device(device: str, attn: str, dtype: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise OptionError(f"--device must be one that torch knows, got {device!r}") from error
    if kind not in ("cpu", "cuda"):
        raise OptionError(f"--device must be cpu or cuda, got {device!r}")
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise OptionError(f"--device {device}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices")
    if attn == "flash_attention_2" and (kind != "cuda" or dtype == "float32"):
        raise OptionError(f"--attn flash_attention_2 needs --device cuda and a 16-bit --dtype, got {device}, {dtype}")


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """OptionError unless the value is one of the choices."""
    if value not in choices:
        raise OptionError(f"{option} must be one of {', '.join(choices)}, got {value!r}")
