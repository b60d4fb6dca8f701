"""Write the generated pages and pictures of docs/: `python docs/generate`; `--no-examples` keeps the examples that are there."""

import sys
from pathlib import Path

from command_line import write_commands
from keys import write_keys
from layers import write_layers
from navigation import DOCS
from rules import write_rules

if __name__ == "__main__":
    write_rules(DOCS, with_examples="--no-examples" not in sys.argv)
    write_commands(DOCS)
    write_keys(DOCS)
    write_layers(DOCS, Path(__file__).parents[2] / "pyproject.toml")
