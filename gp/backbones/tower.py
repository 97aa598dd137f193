"""A vision tower's matrix products in the shapes that hardware likes; the tower itself stays as it is.

Patches are cut so that no two overlap, so their embedding is one product of matrices: as a convolution, which is what
it is stored as, it takes 2.4 times as long on a CPU. And a width that is no multiple of 128 keeps a GPU's tensor cores
from their fast kernels (Qwen2.5-VL: 3,420): with rows and columns of zeros it is one, and the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from gp.backbones.views import twin

MULTIPLE = 128
INNER = ("gate_proj", "up_proj", "linear_fc1")  # of an MLP, to its inner width
OUTER = ("down_proj", "linear_fc2")  # and back; between them is an activation of which 0 is 0
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


class PatchProduct(nn.Module):
    """A convolution whose kernel is as large as its input: [N, C, ...] -> [N, D].

    Args:
        convolution: whose weights are used, as they are at each call.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.convolution = convolution

    @property
    def weight(self) -> Tensor:
        return self.convolution.weight

    def forward(self, patches: Tensor) -> Tensor:
        return linear(patches.flatten(1), self.weight.flatten(1), self.convolution.bias)


class OneFrame(nn.Module):
    """A patch embedding that is given each patch's frame once, where all its frames are alike: [N, C * P] -> [N, D].

    An image is a video whose frames are the same, so the product with the sum of the frames' weights is the same too,
    for half the work.

    Args:
        convolution: of the patch embedding, over [C, frames, height, width].
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.convolution = convolution

    @property
    def proj(self) -> nn.Conv3d:
        """As the stock module calls it."""
        return self.convolution

    def forward(self, patches: Tensor) -> Tensor:
        weight = self.convolution.weight.sum(2).flatten(1)  # [D, C * P]
        return linear(patches, weight, self.convolution.bias)


def patch_products(patch_embed: Any) -> dict[nn.Module, nn.Module]:
    """What stands for the convolution of a patch embedding that is handed patches, one by one; see `view_with_parts`.

    Nothing in 16 bits, where another order of sums may round to another number; nor where somebody else has put
    something around the convolution.
    """
    found: list[Any] = [module for module in patch_embed.children() if type(module) in CONVOLUTIONS]
    return {module: PatchProduct(module) for module in found if _is_plain(module)}


def _is_plain(convolution: Any) -> bool:
    """Tells if a convolution's kernel covers steps of its own size, in float32, and nothing is hung around it."""
    same = convolution.kernel_size == convolution.stride and not any(convolution.padding) and convolution.groups == 1
    touched = convolution._forward_hooks or convolution._forward_pre_hooks or "forward" in convolution.__dict__
    return same and not touched and convolution.weight.dtype == torch.float32


class PaddedMLPs:
    """MLPs of a tower on copies of their weights, padded with zeros to a multiple of 128; made once, where they are.

    Costs memory for the copies. They are made again if the weights move or change their type; who changes them in place
    makes a new one of these.
    """

    def __init__(self) -> None:
        self._made: dict[nn.Module, tuple[tuple, nn.Module]] = {}

    def of(self, mlps: Iterable[nn.Module]) -> dict[nn.Module, nn.Module]:
        """What stands for those MLPs whose width is no multiple; see `view_with_parts`."""
        wanted = [mlp for mlp in mlps if _inner_width(mlp) % MULTIPLE]
        return {mlp: self._padded(mlp) for mlp in wanted}

    def _padded(self, mlp: nn.Module) -> nn.Module:
        place = tuple((weight.data_ptr(), weight.device, weight.dtype) for weight in mlp.parameters())
        if mlp not in self._made or self._made[mlp][0] != place:
            self._made[mlp] = (place, padded_mlp(mlp))
        return self._made[mlp][1]


def padded_mlp(mlp: Any) -> nn.Module:
    """A copy of an MLP [..., D] -> [..., D] with its inner width padded; what is neither a way in nor out is shared."""
    more = -_inner_width(mlp) % MULTIPLE
    parts = {name: part for name, part in mlp._modules.items()}
    for name in parts.keys() & {*INNER}:
        bias = parts[name].bias
        parts[name] = _linear(pad(parts[name].weight, (0, 0, 0, more)), None if bias is None else pad(bias, (0, more)))
    for name in parts.keys() & {*OUTER}:
        parts[name] = _linear(pad(parts[name].weight, (0, more)), parts[name].bias)
    return twin(mlp, _modules=parts)


def _inner_width(mlp: Any) -> int:
    """Width between the ways in and out; 0 unless they are linear layers, in memory, by the names that are known."""
    ways = [getattr(mlp, name, None) for name in (*INNER, *OUTER)]
    ways = [way for way in ways if way is not None]
    is_known = len(ways) >= 2 and all(type(way) is nn.Linear and _is_whole(way.weight) for way in ways)
    return ways[0].out_features if is_known else 0


def _is_whole(weight: Tensor) -> bool:
    """Tells if numbers lie in memory as they are: not quantized, not offloaded, not in shards."""
    return type(weight.data) is Tensor and not weight.is_meta


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made
