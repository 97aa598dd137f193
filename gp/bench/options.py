"""Options that the benches share, and what follows from them: a model and a batch, or a clear refusal."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    "twig": "copies of the layers behind it that the glimpse is read in",
}


class OptionError(ValueError):
    """An option that cannot be; `python -m gp.bench` prints it in one line and exits with status 2."""


@dataclass(frozen=True)
class Setup:
    """Model, device and sizes that a bench measures."""

    preset: Preset
    device: str
    dtype: torch.dtype
    attn: str
    keep_ratio: float
    repeats: int

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
    add_model_arguments(parser, "mid", workload, attn)
    if keep_ratio:
        add_keep_ratio(parser, 0.1)
    add_repeats(parser, 5)
    add_device(parser)


def add_model_arguments(
    parser: argparse.ArgumentParser, preset: str, workload: Sequence[str], attn: bool = True
) -> None:
    """Adds what says which model is meant, and on how much work; `preset` is the default one."""
    parser.add_argument("--preset", default=preset, help=f"size of the model: {', '.join(PRESETS)} ({preset})")
    for name in workload:
        parser.add_argument(_flag(name), type=int, help=f"{WORKLOAD[name]} (the preset's)")
    parser.add_argument("--dtype", help=f"of the frozen model: {', '.join(DTYPES)} (the preset's)")
    if attn:
        parser.add_argument("--attn", default="sdpa", help=f"attention kernel: {', '.join(ATTENTIONS)} (sdpa)")


def add_keep_ratio(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument("--keep-ratio", type=float, default=default, help=f"kept / all tokens, in (0, 1] ({default})")


def add_repeats(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument("--repeats", "--rounds", type=int, default=default, help=f"rounds that count ({default})")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")


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
    preset, dtype = read_preset(options), read_dtype(options)
    keep_ratio = getattr(options, "keep_ratio", 1.0)
    if not 0 < keep_ratio <= 1 or int(keep_ratio * preset.visual) < 1:
        raise OptionError(f"--keep-ratio must keep at least 1 of {preset.visual} tokens and at most all: {keep_ratio}")
    check_at_least(1, options, ("repeats",))
    check_device(options.device)
    if options.attn == "flash_attention_2" and (not options.device.startswith("cuda") or dtype == torch.float32):
        got = f"{options.device}, {dtype_name(dtype)}"
        raise OptionError(f"--attn flash_attention_2 needs --device cuda and a 16-bit --dtype, got {got}")
    return Setup(
        preset=preset,
        device=options.device,
        dtype=dtype,
        attn=options.attn,
        keep_ratio=keep_ratio,
        repeats=options.repeats,
    )


def read_preset(options: argparse.Namespace) -> Preset:
    """The named preset with the numbers that the command line changes; OptionError if that cannot be."""
    check_choice("--preset", options.preset, PRESETS)
    preset = PRESETS[options.preset]
    changes = {name: getattr(options, name, None) for name in WORKLOAD}
    preset = replace(preset, **{name: value for name, value in changes.items() if value is not None})
    check_at_least(1, preset, ("visual", "answer", "batch"))
    if preset.text <= TEXT_AROUND_IMAGE:
        raise OptionError(f"--text must be more than the {TEXT_AROUND_IMAGE} tokens around an image: {preset.text}")
    if not 0 <= preset.prune_layer < preset.layers:
        raise OptionError(f"--prune-layer must be in 0..{preset.layers - 1}, got {preset.prune_layer}")
    if not 0 <= preset.twig < preset.layers - preset.prune_layer:
        raise OptionError(f"--twig must be in 0..{preset.layers - preset.prune_layer - 1}, got {preset.twig}")
    return preset


def read_dtype(options: argparse.Namespace) -> torch.dtype:
    """Type of the frozen model; checks the attention kernel's name, too. OptionError for one that there is not."""
    dtype = options.dtype or read_preset(options).dtype
    check_choice("--dtype", dtype, DTYPES)
    check_choice("--attn", options.attn, ATTENTIONS)
    return getattr(torch, dtype)


def dtype_name(dtype: torch.dtype) -> str:
    """The name as `--dtype` takes it."""
    return str(dtype).removeprefix("torch.")


def check_device(device: str) -> None:
    """OptionError unless it is the CPU or a CUDA device that torch sees."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise OptionError(f"--device must be one that torch knows, got {device!r}") from error
    if kind not in ("cpu", "cuda"):
        raise OptionError(f"--device must be cpu or cuda, got {device!r}")
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise OptionError(f"--device {device}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices")


def check_at_least(least: int, values: Any, names: Sequence[str]) -> None:
    """OptionError if one of the named attributes of `values` is less."""
    for name in names:
        if getattr(values, name) < least:
            raise OptionError(f"{_flag(name)} must be at least {least}, got {getattr(values, name)}")


def read_numbers(option: str, text: str, number: Callable[[str], float] = int, most: float = math.inf) -> list:
    """Numbers with commas between them; OptionError unless all are above 0 and at most `most`."""
    try:
        numbers = [number(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < value <= most for value in numbers):
        bounds = "above 0" if most == math.inf else f"above 0 and at most {most:g}"
        raise OptionError(f"{option} must be numbers {bounds} with commas between them, got {text!r}")
    return numbers


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """OptionError unless the value is one of the choices."""
    if value not in choices:
        raise OptionError(f"{option} must be one of {', '.join(choices)}, got {value!r}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
