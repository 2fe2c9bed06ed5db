"""``python -m mask3d_core.cli``."""

import sys

from mask3d_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
