"""``python -m xdpctl.cli``."""

import sys

from xdpctl.cli.main import main

sys.exit(main())
