"""`python shards/build.py key=value ...`: builds shards; the same as `gp-shards build`."""

import sys

from gp.commands.build_shards import main

if __name__ == "__main__":
    sys.exit(main())
