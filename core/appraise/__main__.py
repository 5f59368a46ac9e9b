"""``python -m core.appraise``."""

import sys

from core.appraise.command import main

if __name__ == "__main__":
    sys.exit(main())
