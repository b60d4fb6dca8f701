"""Where a finding points: at the author's line, or nowhere; never at whoever called the audit."""

from harness.auditing import audit_levels
from harness.case import load_case


def test_a_penalty_of_ours_is_not_blamed_on_the_caller():
    found = audit_levels(load_case("forum"), ["kl_sigmoid_of_relu", "as_posted"])
    named = {level: " ".join(str(each.to_dict()) for each in audit.findings) for level, audit in found.items()}
    assert "test_reporting_place.py" not in named["kl_sigmoid_of_relu"]
    assert "forum.py" in named["as_posted"]
