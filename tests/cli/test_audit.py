"""`harness audit`: exit codes, and one JSON document."""

import json

import pytest
import typer
from typer.testing import CliRunner

from harness.cli.audit import audit

application = typer.Typer()
application.command()(audit)


def run(*arguments):
    return CliRunner().invoke(application, [*arguments, "--no-during", "--seeds", "1"])


def test_a_case_with_faults_exits_with_1_and_prints_them():
    found = run("sibling_count")
    assert found.exit_code == 1
    assert "no_gradient" in found.stdout


def test_a_case_without_fault_exits_with_0():
    assert run("corrected_20").exit_code == 0


def test_json_is_one_document_with_the_names_of_the_type():
    found = json.loads(run("sibling_count", "--json").stdout)
    assert found["case"] == "sibling_count"
    assert {"no_gradient"} <= {each["rule"] for each in found["findings"]}
    assert set(found["findings"][0]) >= {"rule", "severity", "evidence", "meaning", "remedy", "line", "numbers"}


def test_an_unknown_case_is_a_bad_request():
    from harness.errors import HarnessError

    with pytest.raises(HarnessError, match="did you mean 'forum'"):
        CliRunner().invoke(application, ["forumm"], catch_exceptions=False)
