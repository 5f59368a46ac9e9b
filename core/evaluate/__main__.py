"""``python -m core.evaluate``."""

import sys

from core.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main())
