"""What both answers cost, as a table in Markdown."""

from __future__ import annotations

from gp.demo.answering import Figures

HEAD = "| | pruned | un-pruned | |\n|---|---|---|---|"


def figures_table(pruned: Figures, unpruned: Figures | None, machine: str) -> str:
    """One row per figure: pruned, un-pruned, and what pruning makes of it.

    Args:
        pruned: of the pruned answer.
        unpruned: of the other one; None: still on its way.
        machine: where it was measured, in words.
    """
    kept = f"{pruned.num_kept:,} of {pruned.num_visual:,}"
    rows = [
        ("visual tokens", kept, f"{pruned.num_visual:,}", f"{pruned.num_kept / pruned.num_visual:.1%} kept"),
        _row("prefill, ms", pruned, unpruned, "prefill_ms", ".1f"),
        _row("a new token, ms", pruned, unpruned, "token_ms", ".1f"),
        _row("KV cache, MiB", pruned, unpruned, "kv_cache_mib", ".2f"),
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    note = f"Measured once, on {machine}: times of small models say little. Prefill: pictures and whole conversation."
    return "\n".join([HEAD, *lines, "", note])


def _row(name: str, pruned: Figures, unpruned: Figures | None, field: str, digits: str) -> tuple[str, str, str, str]:
    ours = getattr(pruned, field)
    if unpruned is None:
        return name, format(ours, digits), "...", ""
    theirs = getattr(unpruned, field)
    return name, format(ours, digits), format(theirs, digits), f"x {ours / theirs:.2f}"
