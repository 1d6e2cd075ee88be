"""Run the command line with `python -m headwater`."""

import sys

from headwater.cli import main

sys.exit(main())
