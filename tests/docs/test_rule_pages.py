"""Every verdict and rule has a page, made from one table; each example is judged as its page says."""

import inspect
import json
import re

import pytest
from audit_examples import AUDIT_EXAMPLES
from blocks import ROOT, difference
from commands import harness as command
from diagnosis_examples import EXAMPLES
from rules import index, page_text, stored_example

import harness
from harness.auditing.audit_thresholds import SEVERITY, AuditThresholds
from harness.diagnosis.rule_texts import LAYER, OUTPUT, UNIT, UNIT_FLAGS
from harness.diagnosis.verdicts import LayerVerdict, OutputVerdict, UnitVerdict
from harness.rulebook import explain, names

RULES = ROOT / "docs" / "rules"
VERDICTS = {str(verdict) for verdicts in (UnitVerdict, LayerVerdict, OutputVerdict) for verdict in verdicts}
TABLES = {*map(str, UNIT), *UNIT_FLAGS, *LAYER, *map(str, OUTPUT), *SEVERITY, "below_pca"}
WITHOUT_EXAMPLE = {"worse_than_mean"}  # read from results of earlier versions only
WATCHED = {"never_called", "unit_axis", "revived", "units_sampled", "training_rows"}


def test_every_verdict_and_rule_of_the_code_has_a_page_and_no_page_is_left_over():
    assert set(names()) >= VERDICTS | TABLES
    assert {file.stem for file in RULES.glob("[a-z]*.md")} == set(names())


def test_a_rule_that_the_code_writes_by_hand_has_a_page():
    source = "".join(path.read_text() for path in (ROOT / "harness").rglob("*.py") if "rulebook" not in path.parts)
    written = set(re.findall(r'Finding\(\s*"(\w+)",\s*(?:Severity|[A-Z]+\.severity)', source))
    written |= set(re.findall(r'make_finding\(\s*"(\w+)"', source))
    assert written - {"audit"} <= set(names())  # "audit" says that an audit failed


@pytest.mark.parametrize("name", names())
def test_a_page_is_the_one_that_the_table_makes(name):
    file = RULES / f"{name}.md"
    assert file.read_text() == page_text(explain(name), stored_example(file)), "run `make docs`"


def test_the_index_is_the_one_that_the_table_makes():
    assert (RULES / "README.md").read_text() == index(), "run `make docs`"


@pytest.mark.parametrize("name", names())
def test_a_page_is_complete_and_confuses_with_pages_that_exist(name):
    rule = explain(name)
    assert all((rule.says, rule.decided, rule.causes, rule.source, rule.severity))
    assert set(rule.confused) <= set(names()) - {name}
    example = stored_example(RULES / f"{name}.md")
    assert bool(example) is (name not in WITHOUT_EXAMPLE)
    assert name in WITHOUT_EXAMPLE | WATCHED or f"../images/rules/{name}.svg" in example
    for picture in re.findall(r"\((\.\./images/[^)]+)\)", example):
        assert (RULES / picture).is_file()


def test_thresholds_of_the_audit_are_explained_where_they_stand():
    assert "the same ratio; a risk above" in " ".join(explain("dominates").bounds)
    assert set(re.findall(r"^        (\w+):", inspect.getdoc(AuditThresholds) or "", re.MULTILINE)) <= set(
        AuditThresholds().to_dict()
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_activations_of_a_page_have_its_verdict(name):
    example = EXAMPLES[name]()
    diagnosis = harness.diagnose(example.activations, **{"activation": "auto", **example.arguments})
    units = {str(unit.verdict) for unit in diagnosis.units} | {
        flag.name for unit in diagnosis.units for flag in unit.flags
    }
    output = set() if diagnosis.output is None else {str(diagnosis.output.verdict)}
    rules = {finding.rule for finding in diagnosis.findings}
    assert name in units | output | rules | {str(diagnosis.verdict)}
    stored = stored_example(RULES / f"{name}.md").split("```text\n")[1].split("\n```")[0]
    printed = [str(finding) for finding in diagnosis.findings if finding.rule == name] or [
        str(diagnosis).splitlines()[0]
    ]
    assert not difference(stored, printed[0])


@pytest.mark.service
@pytest.mark.parametrize("name", AUDIT_EXAMPLES)
def test_the_loss_or_model_of_a_page_has_its_finding(name):
    example = AUDIT_EXAMPLES[name]
    assert name in harness.audit(example.case(), during_training=example.training).rules


def test_findings_name_their_pages(tmp_path):
    example = EXAMPLES["dead"]()
    diagnosis = harness.diagnose(example.activations, activation="relu")
    (line,) = [line for line in str(diagnosis).splitlines() if line.startswith("More on each: ")]
    words = line.removeprefix("More on each: ").split()
    done = command(*words[1:], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "receives no gradient" in done.stdout
    healthy = harness.diagnose(EXAMPLES["healthy"]().activations, activation="relu")
    assert "More on each" not in str(healthy)


def test_explain_lists_all_and_corrects_a_misspelt_name(tmp_path):
    listed = command("explain", folder=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in listed] == names()
    wrong = command("explain", "ded", folder=tmp_path)
    assert (wrong.returncode, "did you mean 'dead'" in wrong.stderr) == (2, True)
    document = json.loads(command("explain", "dead", "--json", folder=tmp_path).stdout)
    assert document["rules"][0]["severity"] == "risk"
