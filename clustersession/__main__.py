"""`python -m clustersession` is the command `clustersession`."""

import sys

from clustersession.cli.main import main

sys.exit(main())
