"""Attention kernels that really run: each answers the same question with the embedded model, pruned.

`flex_attention` is left out: transformers' vision-language models refuse it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gp.doctor.devices import best_device
from gp.doctor.libraries import installed_version
from gp.doctor.question import ask_about, load
from gp.doctor.report import NOTE, OK, PROBLEM, Line, attempt

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn.attention import SDPBackend

REFERENCE = "eager"
BUILT_IN = (REFERENCE, "sdpa")
PACKAGES = {"flash_attention_2": "flash-attn", "flash_attention_3": "flash-attn-3", "flash_attention_4": "flash-attn-4"}
SDPA_ELSEWHERE = ("FLASH_ATTENTION", "MATH")
SDPA_ON_CUDA = (*SDPA_ELSEWHERE, "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
NEW_TOKENS = 4  # two digits and the end of the answer
SDPA_SHAPE = (1, 4, 128, 64)  # [B, A, S, d]: sizes that every backend takes


@dataclass(frozen=True)
class Outcome:
    """Result of one kernel.

    Args:
        tokens: [new tokens] int64, the answer.
        logits: [new tokens, vocabulary] float32, of which the first row is the prefill's.
        keep_mask: [h, w] bool.
    """

    tokens: Tensor
    logits: Tensor
    keep_mask: Tensor


def check() -> Iterator[Line]:
    """Yields one line per kernel of transformers, then one per backend behind torch's `sdpa`."""
    from transformers import AttentionInterface

    device = best_device()
    dtype = dtype_for(device)
    yield Line("tried on", f"{device}, {str(dtype).removeprefix('torch.')}")
    outcomes: dict[str, Outcome] = {}
    known = AttentionInterface().valid_keys()
    for kernel in [*BUILT_IN, *(name for name in PACKAGES if name in known)]:
        yield attempt(kernel, describe, kernel, device, dtype, outcomes)
    from torch.nn.attention import SDPBackend

    for name in SDPA_ON_CUDA if device.type == "cuda" else SDPA_ELSEWHERE:
        yield attempt(sdpa_name(name), describe_sdpa, SDPBackend.__members__[name], device, dtype)


def dtype_for(device: torch.device) -> torch.dtype:
    """The type that large models have on such a device: FlashAttention takes only 16-bit ones."""
    import torch

    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def describe(kernel: str, device: torch.device, dtype: torch.dtype, outcomes: dict[str, Outcome]) -> Line:
    """Tries one kernel.

    Args:
        kernel: as `attn_implementation` names it.
        device, dtype: of the model.
        outcomes: of kernels tried before; this one's is added.
    """
    if kernel in PACKAGES:
        version = installed_version(PACKAGES[kernel])
        if version is None:
            return Line(kernel, f"{PACKAGES[kernel]} is not installed, optional")
        if device.type != "cuda":
            return Line(kernel, f"{PACKAGES[kernel]} {version} needs a CUDA device")
    outcomes[kernel] = run(kernel, device, dtype)
    if kernel == REFERENCE:
        return Line(kernel, "runs", OK)
    if REFERENCE not in outcomes:
        return Line(kernel, f"runs; nothing to compare with, {REFERENCE} does not", OK)
    return compare(kernel, outcomes[kernel], outcomes[REFERENCE])


def run(kernel: str, device: torch.device, dtype: torch.dtype) -> Outcome:
    """A pruned prefill and the decoding behind it."""
    import torch

    image, question = ask_about()
    model = load(attn_implementation=kernel, dtype=dtype).to(device)
    inputs = model.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question.text}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    out = model.generate(
        **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, output_logits=True, return_dict_in_generate=True
    )
    new = out.sequences[0, inputs["input_ids"].shape[1] :]
    return Outcome(new.cpu(), torch.cat(out.logits).float().cpu(), out.keep_masks[0].cpu())


def compare(kernel: str, found: Outcome, expected: Outcome) -> Line:
    """Says how far a kernel is from the reference; another answer or other kept tokens are a problem."""
    kept, num_other = int(found.keep_mask.sum()), int((found.keep_mask != expected.keep_mask).sum())
    if num_other:
        return Line(kernel, f"runs, but decides otherwise than {REFERENCE} on {num_other} visual tokens", PROBLEM)
    if found.tokens.tolist() != expected.tokens.tolist():
        return Line(kernel, f"runs, but answers otherwise than {REFERENCE}", PROBLEM)
    largest = (found.logits - expected.logits).abs().max().item()
    scale = expected.logits.abs().max().item()
    same = f"runs; keeps {kept} tokens and answers as {REFERENCE} does"
    text = f"{same}; logits differ by {largest:.1e} at most, of {scale:.1f}"
    return Line(kernel, text, OK if math.isfinite(largest) else PROBLEM)


def sdpa_name(backend: str) -> str:
    """`FLASH_ATTENTION` -> `sdpa: flash`."""
    return f"sdpa: {backend.removesuffix('_ATTENTION').lower()}"


def describe_sdpa(backend: SDPBackend, device: torch.device, dtype: torch.dtype) -> Line:
    """Tries one backend of `scaled_dot_product_attention` alone; that there is none on a device is no problem."""
    import torch
    from torch.nn.attention import sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    name = sdpa_name(backend.name)
    q, k, v = torch.randn(3, *SDPA_SHAPE, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with sdpa_kernel(type(backend).MATH):
        expected = scaled_dot_product_attention(q, k, v, is_causal=True)
    with warnings.catch_warnings(record=True) as reasons, sdpa_kernel(backend):
        warnings.simplefilter("always")
        try:
            found = scaled_dot_product_attention(q, k, v, is_causal=True)
        except RuntimeError as error:
            said = [str(reason.message).split(" (Triggered")[0].strip() for reason in reasons] or [str(error)]
            return Line(name, f"not here: {' '.join(said[-1].split())}", NOTE)
    return Line(name, f"runs; {(found - expected).abs().max().item():.1e} from math at most", OK)
