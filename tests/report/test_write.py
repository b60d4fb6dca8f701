"""What lies beside the page, and the pages of one layer and of two experiments."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas
import pytest
import torch
from fake_results import effects_of, study, without_diagnosis
from markupsafe import escape

from harness.auditing import Audit
from harness.diagnosis import diagnose
from harness.diagnosis.finding import Finding
from harness.diagnosis.sensitivity import Sensitivity
from harness.diagnosis.severity import Severity
from harness.effects import compare
from harness.errors import HarnessError
from harness.report import picture, write_comparison, write_diagnosis_report, write_report
from harness.report.method import reproducibility, sensitive
from harness.report.page_templates import markdown_text
from harness.report.write import guard
from harness.results import MemberRecord

pytestmark = pytest.mark.many

ANSWER_KEYS = (
    *("remedy", "seeds", "failed_before", "failed_after", "collapsed_before", "collapsed_after", "low", "high"),
    *("p", "p_adjusted", "r2_before", "r2_after", "word"),
)


class Page(HTMLParser):
    """What of a page a test asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    first = study(seeds=8, name="before")
    second = study(seeds=8, name="after", change=lambda each: replace(each, verdict="healthy", live_units=each.units))
    folder = tmp_path_factory.mktemp("comparison")
    return write_comparison(first, second, compare(first, second), folder)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    code = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).clamp(min=0)
    code[:, 1:] = 0
    audit = Audit("<b>case</b>", (Finding("wrong_axis", "fault", "<script>1</script>", "m", "mean over dim 0"),))
    return write_diagnosis_report(diagnose(code, information=False), audit, tmp_path_factory.mktemp("layer"))


@pytest.fixture(params=["written", "comparison", "layer"])
def page(request: pytest.FixtureRequest) -> Path:
    found = request.getfixturevalue(request.param)
    return found / "report.html" if found.is_dir() else found


def test_a_page_runs_nothing_and_names_no_address(page):
    text = page.read_text()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert not re.search(r"https?://|<script|javascript:|@import|\son\w+=", text)
    links = [attributes.get("href") or "" for tag, attributes in Page(page).tags if tag in ("a", "link")]
    assert all(link.startswith(("#", "data:")) for link in links)


def test_headings_descend_one_step_at_a_time(page):
    levels = Page(page).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_picture_says_in_words_what_it_shows(page):
    tags = Page(page).tags
    words = [attributes.get("alt") for tag, attributes in tags if tag == "img"]
    words += [attributes.get("aria-label") for tag, attributes in tags if tag == "svg"]
    assert words
    assert all(each and len(each) > 20 for each in words)


def test_every_figure_has_its_numbers_in_a_table_behind_it(page):
    figures = re.findall(r"<figure[^>]*>.*?</figure>", page.read_text(), re.S)
    assert figures
    assert all(re.search(r"<details>.*<table>.*<td>.*</table>.*</details>", each, re.S) for each in figures)


def test_no_name_inside_a_page_stands_twice(page):
    names = [attributes["id"] for _, attributes in Page(page).tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_every_reference_inside_a_figure_has_something_to_refer_to(page):
    text = page.read_text()
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(re.findall(r'id="([^"]+)"', text))


def test_report_json_has_the_effects_under_their_names(written):
    document = json.loads((written / "report.json").read_text())
    names = {"factor", "level", "baseline", "outcome", "estimate", "low", "high", "p", "p_adjusted", "seeds", "blocks"}
    assert names | {"discordant"} <= set(document["effects"][0])
    assert len(document["cells"]) == 4
    assert document["counts"]["members"] == 32
    assert len(document["averaged"]) == 5
    assert set(document["answer"]) == {"headline", "remedies"}
    assert {*ANSWER_KEYS} <= set(document["answer"]["remedies"][0])
    assert len(document["answer"]["remedies"]) == 2  # the cells that change one factor
    assert {"interactions", "contrasts", "thresholds", "experiment", "versions", "explanation"} <= set(document)


def test_members_csv_reads_back_as_what_it_was(written):
    frame = pandas.read_csv(written / "members.csv")
    assert len(frame) == 32
    assert frame["batchnorm"].unique().tolist() == ["off", "on"]
    assert set(frame["verdict"]) <= {"full_collapse", "single_live_unit", "healthy"}


def test_units_parquet_has_a_row_for_every_unit(written):
    assert len(pandas.read_parquet(written / "units.parquet")) == 4 * 32


def test_markdown_answers_first_and_stays_small(written):
    text = (written / "report.md").read_text()
    assert text.index("| remedy |") < text.index("## Verdicts") < text.index("## Effects") < text.index("## Limits")
    assert text.index("## Effects, averaged over the other factors") < text.index("How often")
    # what GitHub takes as the body of an issue
    assert len(text) < 65_536
    assert "<" not in text.replace("&lt;", "").replace("< 0.001", "")


def test_the_headline_and_one_table_stand_first_with_the_baseline_first(written):
    text = (written / "report.html").read_text()
    table = text[text.index('<table class="remedies">') :]
    assert text.index('class="headline"') < text.index('<table class="remedies">') < text.index("<nav")
    assert re.search(r'<tbody>\s*<tr class="baseline"><th scope="row">as it is \(baseline\)</th>', table)
    assert table[: table.index("</table>")].count("<tr") == 1 + 1 + 2


def test_every_place_says_the_same_headline(written):
    document = json.loads((written / "report.json").read_text())
    sentence = document["answer"]["headline"]
    assert markdown_text(sentence) in (written / "report.md").read_text()
    assert str(escape(sentence)) in (written / "report.html").read_text()


def test_one_change_at_a_time_has_no_tables_by_factor(tmp_path):
    full, both = study(seeds=8), {"penalty": "as_posted", "batchnorm": "on"}
    star = replace(full, records=[record for record in full.records if record.levels != both])
    pages = {}
    for name, results in (("full", full), ("star", star)):
        pages[name] = write_report(results, effects_of(results), tmp_path / name).read_text()
    assert "By penalty" in pages["full"]
    assert "By penalty" not in pages["star"]
    assert "By variant" in pages["star"]
    assert "averaged over the other factors" in pages["full"]
    assert "averaged over the other factors" not in pages["star"]
    assert re.search(r"<th scope=\"row\">BatchNorm<br>.*\d → 0 of 8", pages["star"])


def test_a_remedy_stands_beside_its_levels_and_the_baseline_has_none(written):
    text = (written / "report.html").read_text()
    table = text[text.index('<table class="remedies">') :].partition("</table>")[0]
    assert '<th scope="row">BatchNorm<br><span class="setting">batchnorm=on</span></th>' in table
    assert '<th scope="row">the penalty as posted<br><span class="setting">penalty=as_<wbr>posted</span></th>' in table
    assert '<th scope="row">as it is (baseline)</th>' in table


def test_a_level_that_is_in_the_name_of_a_remedy_is_not_said_again(tmp_path):
    results = study({"activation": ["relu", "leaky_relu"], "batchnorm": ["off", "on"]}, seeds=2)
    write_report(results, effects_of(results), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert '<th scope="row">leaky_relu</th>' in text
    assert '<th scope="row">BatchNorm<br><span class="setting">batchnorm=on</span></th>' in text


def test_dead_outputs_are_explained_where_they_are_first_named():
    moved = {"changes": {"redundant, output dead_outputs -> redundant, output healthy": 3}, "changed": 3}
    dead = sensitive([Sensitivity("dead_outputs", 0.05, 0.02, 0.14, 8, **moved)])
    assert 'from "redundant, dead outputs" to "redundant, output healthy": 3). "Dead outputs": some output' in dead
    live = sensitive([Sensitivity("redundant_share", 0.5, 0.2, 0.8, 8, 3, {"redundant -> healthy": 3})])
    assert live.endswith('from "redundant" to "healthy": 3).')


def test_no_cell_starts_a_formula(tmp_path):
    names = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"]
    results = study({"penalty": ["none", *names]}, seeds=2)
    write_report(results, effects_of(results), tmp_path)
    cells = [cell for row in csv.reader((tmp_path / "members.csv").open(newline="", encoding="utf-8")) for cell in row]
    assert [cell for cell in cells if guard(cell) is not cell] == []
    assert all(any(name.strip() in cell for cell in cells) for name in names)


def test_numbers_stay_numbers_in_a_spreadsheet():
    assert [guard(each) for each in ("-0.5", "1e-3", -3, None)] == ["-0.5", "1e-3", -3, None]


def test_experiments_of_which_nothing_ran_have_a_report(tmp_path):
    results = study(seeds=2, change=without_diagnosis)
    text = write_report(results, effects_of(results), tmp_path).read_text()
    assert "out of memory" in text
    assert "not estimable, no member has a verdict" in text


def why(folder: Path) -> str:
    """The section "Why" of the page and of the Markdown."""
    html, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    return (
        html.split('id="explanation">Why')[1].split("</section>")[0]
        + markdown.split("## Why, by variant")[1].split("## ")[0]
    )


def test_a_risk_of_the_audit_stands_under_why_and_a_note_does_not(tmp_path):
    risk = Finding("dominates", Severity.RISK, "40 times the norm", numbers={"ratio_at_0": 40.0}).to_dict()
    note = Finding("collapse_optimum", Severity.NOTE, "it shrinks the code").to_dict()
    for name, findings in (("risk", [note, risk]), ("note", [note])):
        results = study(seeds=2, audit={"as_posted": findings, "none": []})
        write_report(results, effects_of(results), tmp_path / name)
    assert why(tmp_path / "risk").count("The audit of the penalty reports the risk dominates: 40 times the norm.") == 2
    assert "it shrinks the code" not in why(tmp_path / "risk")
    assert "audit of the penalty" not in why(tmp_path / "note")
    assert "it shrinks the code" in (tmp_path / "note" / "report.html").read_text()


@pytest.mark.parametrize("severity", ["warning", "catastrophe", "<b>", None])
def test_a_stored_severity_that_is_not_known_today_does_not_stop_a_report(tmp_path, severity):
    stored = {**Finding("dominates", Severity.RISK, "40 times the norm").to_dict(), "severity": severity}
    results = study(seeds=2, audit={"as_posted": [stored], "none": []})
    text = write_report(results, effects_of(results), tmp_path).read_text()
    assert "40 times the norm" in text
    assert ("reports the risk dominates" in why(tmp_path)) is (severity == "warning")


def test_a_comparison_shows_both_experiments_and_their_difference(comparison):
    text = comparison.read_text()
    assert "before and after, side by side" in text
    assert "paired by variant and seed" in text
    assert json.loads((comparison.parent / "comparison.json").read_text())["paired"] is True


def test_a_layer_has_its_verdict_findings_and_audit(layer):
    text = layer.read_text()
    assert "single live unit: 1 of 4 units vary" in text
    assert "mean over dim 0" in text
    assert "&lt;script&gt;1&lt;/script&gt;" in text
    assert json.loads((layer.parent / "report.json").read_text())["diagnosis"]["verdict"] == "single_live_unit"


def test_a_picture_is_a_picture_file_or_refused(tmp_path):
    found = diagnose(torch.eye(20)[:, :3], information=False)
    assert picture(found, tmp_path / "units.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(HarnessError, match=r"expected a file name that ends in one of"):
        picture(found, tmp_path / "units.docx")


def test_the_gpus_are_told_where_a_member_trained_on_one():
    on_one = [MemberRecord(f"k{seed}", "v", {}, seed, gpu="NVIDIA H100") for seed in range(2)]
    beside = [MemberRecord("k2", "v", {}, 2), MemberRecord("k3", "v", {}, 3, status="failed")]
    assert dict(reproducibility({}, on_one + beside))["trained on"] == "NVIDIA H100 (2 members), CPU (1 member)"
    assert "trained on" not in dict(reproducibility({}, beside))
