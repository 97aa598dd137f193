"""`python train.py --config configs/tiny.yaml`: trains, then evaluates; the same as `gp-train`."""

import sys

from gp.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
