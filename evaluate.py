"""`python evaluate.py ckpt=runs/tiny`: evaluates a trained glimpse beside other methods; the same as `gp-evaluate`."""

import sys

from gp.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
