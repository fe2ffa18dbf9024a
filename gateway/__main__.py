"""`python -m gateway`: see process.py."""

import sys

from gateway.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
