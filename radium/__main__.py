"""`python -m radium` is the command `radium`."""

import sys

from radium.cli import main

if __name__ == "__main__":
    sys.exit(main())
