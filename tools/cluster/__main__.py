"""Entry point: `python3 tools/cluster COMMAND`."""

import sys

from localcluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
