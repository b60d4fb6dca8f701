"""Names, errors and findings are a stranger's: in no file of a report do they become markup, formulas or code."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from fake_sweep import HOSTILE, planted, report

HARMLESS = {
    *("html", "head", "meta", "title", "style", "link", "body", "header", "main", "nav", "footer", "section"),
    *("h1", "h2", "h3", "h4", "p", "ul", "ol", "li", "dl", "dt", "dd", "a", "span", "sup", "sub", "br", "div"),
    *("figure", "figcaption", "details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td", "img"),
    *("code", "pre", "svg", "g", "path", "use", "defs", "clippath", "rect", "text", "tspan", "image"),
}


class Page(HTMLParser):
    """Every tag with its attributes, and every address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return report(tmp_path_factory.getbasetemp(), "hostile").parent


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page((folder / "report.html").read_text())


def test_no_name_becomes_a_tag(page):
    assert {tag for tag, _ in page.tags} <= HARMLESS


def test_no_attribute_acts_and_no_address_leads_out_of_the_page(page):
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("srcdoc", "formaction", "target")]
        for name in ("href", "src", "xlink:href", "action", "data"):
            if name in attributes:
                assert re.match(r"#|data:(image/png;base64)?,", attributes[name] or ""), (tag, attributes[name])
        assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", attributes.get("style") or "")


def test_every_name_is_still_to_be_read(folder):
    from html import unescape

    shown = unescape((folder / "report.html").read_text())
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[4], HOSTILE[6]):
        assert name in shown


def test_no_mark_turns_the_direction_of_what_follows(folder):
    for name in ("report.html", "report.md"):
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", (folder / name).read_text())


def test_markdown_shows_names_as_they_stand(folder):
    text = (folder / "report.md").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"(?<!\\)\]\(javascript:", text)
    tables = [each.splitlines() for each in re.split(r"\n\n+", text) if each.startswith("|")]
    assert tables
    for table in tables:
        # a pipe or a line break in a name would tear its row
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table}) == 1


def test_a_spreadsheet_takes_no_cell_for_a_formula(folder):
    with (folder / "members.csv").open(newline="") as opened:
        rows = list(csv.reader(opened))
    assert len(rows) == 1 + len(planted("hostile")[1])
    for cell in (cell for row in rows for cell in row):
        start = cell.lstrip(" \t\r\n")[:1]
        assert start not in ("=", "+", "@", "|", "%") or re.fullmatch(r"\+?[\d.]+(e-?\d+)?", cell)
        assert start != "-" or re.fullmatch(r"-[\d.]+(e[+-]?\d+)?", cell)


def test_numbers_of_the_csv_stay_numbers(tmp_path_factory):
    folder = report(tmp_path_factory.getbasetemp(), "few").parent
    frame = pd.read_csv(folder / "members.csv")
    assert frame["r2"].tolist() == pytest.approx([record.r2 for record in planted("few")[1]])
    assert frame["seed"].tolist() == [record.seed for record in planted("few")[1]]


def test_the_names_survive_in_what_machines_read(folder):
    document = json.loads((folder / "report.json").read_text())
    assert {effect["factor"] for effect in document["effects"]} == {HOSTILE[1], "note"}
    units = pd.read_parquet(folder / "units.parquet")
    assert set(units["variant"]) == {record.variant for record in planted("hostile")[1]}
