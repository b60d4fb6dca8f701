"""`python -m harness`: the command line."""

import os
import sys
from contextlib import suppress

with suppress(OSError):  # the working directory may be gone
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]  # `-m` puts it first, and a `gzip.py` there would be imported by libraries

from harness.cli import main

if __name__ == "__main__":
    main()
