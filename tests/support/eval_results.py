"""What an evaluation wrote into its folder, read back by plain means."""

from __future__ import annotations

import json
from pathlib import Path

OVERRIDES = ("eval.pruners=[glimpse,random,oracle]", "eval.budgets=[null,0.5]")
# what depends on the machine and on the batch size
COSTS = (
    *("prefill_s", "decode_s", "prefill_ratio", "decode_ratio", "peak_mib", "kv_cache_mib"),
    *("prefill_ms", "decode_ms", "questions_per_s", "vip_ece"),  # the last one in its last digits
)


def lines_of(out: Path, label: str) -> dict[str, dict]:
    paths = sorted((out / "samples").glob(f"test-{label}*.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["id"]: line for line in lines}


def rows_of(out: Path) -> dict[tuple, dict]:
    rows = json.loads((out / "summary.json").read_text())
    return {(row["pruner"], row["budget"]): row for row in rows}


def without_costs(row: dict) -> dict:
    """Without what may differ; of calibration counts the sums of probabilities, which do in their last digits."""
    kept = {key: value for key, value in row.items() if key not in COSTS}
    if kept.get("calibration"):
        kept["calibration"] = [counts[:2] for counts in kept["calibration"]]
    return kept


def results_in(out: Path) -> dict[str, list[dict]]:
    """File -> its results in the order of their ids."""
    found = {}
    for path in sorted((out / "samples").glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.name] = sorted(map(without_costs, lines), key=lambda line: line["id"])
    return found


def summary_in(out: Path) -> list[dict]:
    return [without_costs(row) for row in json.loads((out / "summary.json").read_text())]
