"""What members left behind: the truth of which MLflow and the report are projections."""

from harness.results.files import slug, write_json, write_whole
from harness.results.keys import RESULTS_FORMAT, case_fingerprint, member_key
from harness.results.records import COLLAPSED, MemberRecord
from harness.results.store import (
    Results,
    packed,
    read_records,
    read_results,
    unpacked,
    write_manifest,
    write_stack,
)

__all__ = [
    "COLLAPSED",
    "RESULTS_FORMAT",
    "MemberRecord",
    "Results",
    "case_fingerprint",
    "member_key",
    "packed",
    "read_records",
    "read_results",
    "slug",
    "unpacked",
    "write_json",
    "write_manifest",
    "write_stack",
    "write_whole",
]
