"""`python -m jobs` is `zipstage`."""

from __future__ import annotations

import sys

from jobs.main import main

sys.exit(main())
