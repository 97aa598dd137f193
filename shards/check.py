"""`python shards/check.py SHARDS ...`: shows what is in shards; the same as `gp-shards check`."""

import sys

from gp.commands.check_shards import main

if __name__ == "__main__":
    sys.exit(main())
