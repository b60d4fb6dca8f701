"""The code blocks of the pages run as they stand, and print what the page shows."""

from pathlib import Path

import pytest
from blocks import PART, ROOT, difference, run_page

PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "rules" not in page.parts)
LANGUAGES = ("python", "console")
SERVICE = {"running.md", "dead-autoencoder.md", "audit.md"}  # their blocks train models for ten seconds and more


def has_blocks(page):
    return any(match["language"] in LANGUAGES for match in PART.finditer(page.read_text()))


def marked(page):
    marks = [pytest.mark.service] if page.name in SERVICE else []
    return pytest.param(page, id=page.relative_to(ROOT).as_posix(), marks=marks)


@pytest.mark.parametrize("page", [marked(page) for page in PAGES if has_blocks(page)])
def test_the_blocks_of_a_page_run_and_print_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for block in run_page(page, tmp_path):
        if block.shown is not None:
            assert not difference(block.shown, block.printed), block.code


def test_an_output_that_differs_is_noticed(tmp_path):
    page = Path(tmp_path / "page.md")
    page.write_text("```python\nprint('dead', 0.5)\n```\n\n```text\nalive 0.5\n```\n\n```python\nprint(2)\n```\n")
    first, second = run_page(page, tmp_path)
    assert difference(first.shown, first.printed)
    assert second.shown is None
    assert difference("0.5 bits", "0.6 bits")
    assert not difference("0.500 bits\n...\nend", "0.501 bits\nsomething\nend")
    assert difference("a\n...\nend", "a\nsomething")


def test_a_block_that_fails_is_noticed(tmp_path):
    page = Path(tmp_path / "page.md")
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        list(run_page(page, tmp_path))


def test_a_script_of_a_page_runs_before_and_after_its_diff(tmp_path):
    page, diff = (
        Path(tmp_path / "page.md"),
        "--- part.py\n+++ part.py\n@@\n import sys\n-print(1)\n+print(sys.argv[1])\n",
    )
    script, shown = "```python\n# part.py\nimport sys\nprint(1)\n```\n", "```console\n$ python part.py 7\n1\n```\n"
    page.write_text(f"{script}\n{shown}\n```diff\n{diff}```\n\n{shown}")
    assert [block.printed for block in run_page(page, tmp_path)] == ["1\n", "7\n"]
    page.write_text(f"{script}\n```diff\n{diff.replace('import sys', 'import os')}```\n")
    with pytest.raises(AssertionError, match=r"a hunk must fit one place of part\.py"):
        list(run_page(page, tmp_path))


def test_files_setup_and_skipped_blocks(tmp_path):
    page = Path(tmp_path / "page.md")
    page.write_text(
        "<!-- setup\nvalue = 3\n-->\n\n```python\n# part.py\nprint('never')\n```\n\n"
        "<!-- not run: an example of a fault -->\n\n```python\n1 / 0\n```\n\n```python\nprint(value)\n```\n\n```text\n3\n```\n"
    )
    (block,) = run_page(page, tmp_path)
    assert (block.printed, (tmp_path / "part.py").exists()) == ("3\n", True)
