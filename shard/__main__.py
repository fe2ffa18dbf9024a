"""`python -m shard`: see process.py."""

import sys

from shard.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
