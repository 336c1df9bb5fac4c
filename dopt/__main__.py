"""`python -m dopt`: the command, wherever dopt was found."""

import sys

from dopt_command import main

if __name__ == "__main__":
    sys.exit(main())
