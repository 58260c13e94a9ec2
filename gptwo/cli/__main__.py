"""`python -m gptwo.cli`: the commands without the installed script."""

import sys

from gptwo.cli import main

sys.exit(main())
