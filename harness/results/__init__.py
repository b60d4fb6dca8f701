"""What members left behind: the truth of which MLflow and the report are projections. pyarrow loads with the store."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.results.answers import dump_records, load_records
    from harness.results.files import slug, write_atomic, write_json
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
    "case_fingerprint",
    "dump_records",
    "load_records",
    "member_key",
    "read_manifest",
    "read_records",
    "read_results",
    "remove_abandoned",
    "slug",
    "stored_keys",
    "write_atomic",
    "write_json",
    "write_manifest",
    "write_stack",
]

_HOMES = {
    **dict.fromkeys(("dump_records", "load_records"), "answers"),
    **dict.fromkeys(("slug", "write_json", "write_atomic"), "files"),
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
