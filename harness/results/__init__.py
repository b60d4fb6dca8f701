"""What members left behind: the truth of which MLflow and the report are projections. pyarrow loads with the store."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.results.answers import as_answer, of_answer
    from harness.results.files import slug, write_json, write_whole
    from harness.results.keys import RESULTS_FORMAT, case_fingerprint, member_key
    from harness.results.records import COLLAPSED, MemberRecord
    from harness.results.store import (
        Results,
        read_manifest,
        read_records,
        read_results,
        stored_keys,
        write_manifest,
        write_stack,
    )
    from harness.results.temporary import remove_abandoned

__all__ = [
    "COLLAPSED",
    "RESULTS_FORMAT",
    "MemberRecord",
    "Results",
    "as_answer",
    "case_fingerprint",
    "member_key",
    "of_answer",
    "read_manifest",
    "read_records",
    "read_results",
    "remove_abandoned",
    "slug",
    "stored_keys",
    "write_json",
    "write_manifest",
    "write_stack",
    "write_whole",
]

_HOMES = {
    **dict.fromkeys(("as_answer", "of_answer"), "answers"),
    **dict.fromkeys(("slug", "write_json", "write_whole"), "files"),
    **dict.fromkeys(("RESULTS_FORMAT", "case_fingerprint", "member_key"), "keys"),
    **dict.fromkeys(("COLLAPSED", "MemberRecord"), "records"),
    **dict.fromkeys(("Results", "read_records", "read_results"), "store"),
    **dict.fromkeys(("read_manifest", "stored_keys", "write_manifest", "write_stack"), "store"),
    "remove_abandoned": "temporary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.results' has no attribute {name!r}")
    return getattr(import_module(f"harness.results.{_HOMES[name]}"), name)
