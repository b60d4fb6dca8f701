"""Remedies as code to copy into the user's model or training loop: its own lines from the run, or general ones."""

from collections.abc import Mapping
from typing import Any

from harness.grid.names import cell_name
from harness.results.records import Level
from harness.source_changes.general_lines import remedy_code


def code_of(remedy: Mapping[str, Level], manifest: Mapping[str, Any]) -> str:
    """The lines that the run wrote for the case's own model; without them, general lines.

    >>> code_of({"batchnorm": "on"}, {"code": {"batchnorm: on": "model.code = ..."}})
    'model.code = ...'
    """
    own = (manifest.get("code") or {}).get(cell_name(remedy))
    bottleneck = (manifest.get("inputs") or {}).get("bottleneck") or "bottleneck"
    return str(own) if own else remedy_code(remedy, str(bottleneck))
