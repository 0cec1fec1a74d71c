"""`python -m medimgen`."""

import sys

from medimgen.cli import main

sys.exit(main())
