"""``python -m flows`` is the command ``chapter``."""

import sys

from flows.cli import main

sys.exit(main())
