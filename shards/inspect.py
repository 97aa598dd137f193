"""Shows what is in shards: counts, visual tokens, evidence areas; checks them against their manifest.

python shards/inspect.py shards/viscot --config configs/qwen7b.yaml
python shards/inspect.py "shards/viscot/gqa-train-{000000..000001}.tar" --sheet gqa.png
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # instead of this folder, where inspect.py would hide Python's own module of that name
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gp.config import load_config
from gp.data.inspecting import contact_sheet, inspect_shards, print_report, token_counter
from gp.data.inspecting.contact_sheet import Chosen
from gp.data.inspecting.reading import named_shards


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; returns the exit status, 2 for shards that are not what they should be."""
    options = parse(arguments)
    try:
        model = load_config(options.config).model if options.config else None
        chosen = Chosen()
        report = inspect_shards(named_shards(options.path), token_counter(model), chosen)
        print_report(report, Console())
        if options.sheet:
            contact_sheet(chosen.records).save(options.sheet)
            print(f"{len(chosen.records)} images with their boxes: {options.sheet}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a folder of shards, a shard, or braces in quotes")
    parser.add_argument("--config", type=Path, help="whose base and pixel budget to count visual tokens for")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here (.png)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
