"""One scale of severities: what diagnosis and audit write is what every reader asks for."""

import json

import pytest

from harness.auditing import Audit
from harness.auditing.audit_result import by_gravity
from harness.auditing.audit_thresholds import SEVERITY
from harness.diagnosis import Diagnosis, Finding, Severity, rule_texts
from harness.diagnosis.severity import gravity, severity_of


def test_the_words_are_plain_strings_in_one_order():
    assert [str(severity) for severity in Severity] == ["fault", "risk", "note", "undecided"]
    assert sorted(Severity, key=gravity) == list(Severity)
    assert json.dumps([*Severity]) == '["fault", "risk", "note", "undecided"]'


def test_every_rule_of_diagnosis_and_audit_has_a_severity_of_the_scale():
    written = [
        text
        for table in (rule_texts.LAYER, rule_texts.UNIT, rule_texts.UNIT_FLAGS, rule_texts.OUTPUT)
        for text in table.values()
    ]
    severities = [text.severity for text in (*written, rule_texts.BELOW_PCA)] + list(SEVERITY.values())
    assert all(isinstance(severity, Severity) for severity in severities)
    assert Severity.RISK in {text.severity for text in written}


def test_a_finding_is_written_as_plain_json_and_read_back_with_its_severity():
    stored = Finding("dominates", Severity.RISK).to_dict()
    assert type(stored["severity"]) is str
    assert Finding.from_dict(stored).severity is Severity.RISK
    assert Finding("dominates", "risk") == Finding("dominates", Severity.RISK)


def test_the_word_of_earlier_versions_is_a_risk():
    assert Finding("dead", "warning").severity is Severity.RISK
    assert severity_of("warning") is Severity.RISK


@pytest.mark.parametrize("word", ["catastrophe", "", 7])
def test_a_stored_word_that_names_no_severity_is_kept_and_comes_last(word):
    findings = [Finding("a", word), Finding("b", "note"), Finding("c", "fault")]
    assert [finding.rule for finding in by_gravity(findings)] == ["c", "b", "a"]
    audit = Audit("case", by_gravity(findings))
    assert Audit.from_dict(audit.to_dict()).findings[-1].severity == str(word)
    assert str(audit).startswith("case: 1 fault, 0 risks, 1 note, 0 undecided")


def test_a_stored_diagnosis_of_earlier_versions_is_read():
    import torch

    from harness.diagnosis import diagnose

    stored = diagnose(torch.zeros(20, 3), information=False).to_dict()
    for finding in stored["findings"]:
        finding["severity"] = "warning"
    assert {finding.severity for finding in Diagnosis.from_dict(stored).findings} == {Severity.RISK}
