"""`python shards/build_tiny.py`: builds the shards of the embedded data; the same as `gp-shards tiny`."""

import sys

from gp.commands.build_tiny_shards import main

if __name__ == "__main__":
    sys.exit(main())
