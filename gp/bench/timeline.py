"""Times the stages of a prefill by the calls that the engine makes to backbone and pruner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

from torch.profiler import record_function

from gp.backbones import Backbone
from gp.engine.known_rows import takes_rows
from gp.measure.stopwatch import Marks, synchronize
from gp.pruners import Pruner

OTHER = "other"
LAYERS_BEFORE, LAYERS_AFTER = "layers before", "layers after"
PRUNE_LAYER = "prune layer"  # where what stays runs alone
# method -> the stage that its own time belongs to, and the stage of what the engine does after it by itself
OF_BACKBONE = {
    "embed": ("embedding and layout", OTHER),
    "encode_images": ("vision", "embedding and layout"),
    "causal_mask": ("mask", OTHER),
    "rotary": ("rotary", OTHER),
    "query": ("glimpse read", "glimpse read"),
    "remember": (PRUNE_LAYER, OTHER),
    "logits": ("head", OTHER),
}
OF_PRUNER = {
    "tokens": ("glimpse vectors", OTHER),
    "scores": ("VIP", OTHER),
    "keep": ("selection", "compaction"),
}


class Timeline:
    """Seconds by stage. On a GPU by events in its queue, so that the host runs ahead as it does unwatched.

    A stage that waits for the host to hand it work has that time booked, too.

    Args:
        backbone, pruner: whose calls are watched, while `watching`; nothing stays attached.
        device: whose time it is.
    """

    def __init__(self, backbone: Backbone, pruner: Pruner, device: str) -> None:
        self.backbone, self.pruner, self.device = backbone, pruner, device
        self.seconds: dict[str, float] = defaultdict(float)
        self._marks = Marks(device)
        self._stages = [OTHER]
        self._boundaries: list[tuple[str, Any]] = []  # the stage that begins, and when

    @contextmanager
    def watching(self) -> Iterator[dict[str, float]]:
        """Collects during the block, and puts the methods back afterwards."""
        with ExitStack() as stack:
            for owner, methods in ((self.backbone, OF_BACKBONE), (self.pruner, OF_PRUNER)):
                for name, (stage, after) in methods.items():
                    self._wrap(stack, owner, name, lambda *args, stage=stage: stage, after)
            self._wrap(stack, self.backbone, "layer", self._layer_stage, OTHER)
            synchronize(self.device)
            self._turn(OTHER)
            yield self.seconds
            self._turn(OTHER)
            synchronize(self.device)
            for (stage, begin), (_, end) in pairwise(self._boundaries):
                self.seconds[stage] += self._marks.seconds_between(begin, end)

    def _layer_stage(self, index: int, *args: Any) -> str:
        if not self.pruner.stages or index < max(self.pruner.stages):
            return LAYERS_BEFORE
        if index > max(self.pruner.stages):
            return LAYERS_AFTER
        return LAYERS_BEFORE if self.pruner.needs_hidden or not takes_rows(self.backbone) else PRUNE_LAYER

    def _wrap(self, stack: ExitStack, owner: Any, name: str, stage_of: Callable[..., str], after: str) -> None:
        inner = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            stage = stage_of(*args)
            self._turn(stage)
            self._stages.append(stage)
            with record_function(f"gp: {stage}"):
                out = inner(*args, **kwargs)
            self._stages.pop()
            # within another watched call its own stage goes on; in the engine itself, what follows has a name too
            self._turn(after if len(self._stages) == 1 else self._stages[-1])
            return out

        setattr(owner, name, watched)
        stack.callback(delattr, owner, name)

    def _turn(self, stage: str) -> None:
        """`stage` begins."""
        self._boundaries.append((stage, self._marks.set()))
