"""``python -m nndoctor``: the command line of the Python that runs it, whichever ``nndoctor`` is first on the path."""

from __future__ import annotations

import sys

from nndoctor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
