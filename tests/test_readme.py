"""The blocks of the README run as they stand and print what it says; its links, and those of the pages, lead somewhere."""

import contextlib
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def blocks(language: str) -> list[str]:
    """Code blocks of the README in a language; "" for blocks without one."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def words_and_numbers(text: str) -> tuple[str, list[float]]:
    """The text with a mark for each number and one space between words, and the numbers."""
    return " ".join(NUMBER.sub("#", text).split()), [float(number) for number in NUMBER.findall(text)]


@pytest.fixture(scope="module")
def case_file(tmp_path_factory):
    """The README's case file, in a folder beside its experiment file."""
    folder = tmp_path_factory.mktemp("readme")
    (code,) = [block for block in blocks("python") if block.startswith("# mine.py\n")]
    (experiment,) = blocks("yaml")
    (folder / "mine.py").write_text(code)
    (folder / "mine.yaml").write_text(experiment)
    return folder / "mine.py"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_scripts_print_what_the_readme_shows(tmp_path):
    scripts = [block for block in blocks("python") if not block.startswith("# mine.py\n")]
    assert len(scripts) == 2
    assert len([line for line in scripts[0].splitlines() if line]) == 6
    (tmp_path / "script.py").write_text("\n".join(scripts))  # the second goes on with the model of the first
    process = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    (diagnosis,) = [block for block in blocks("") if block.startswith("single_live_unit")]
    comment = re.search(r"print\(monitor\.diagnosis\(\)\.verdict\)  # (\w+)", scripts[1]).group(1)
    words, numbers = words_and_numbers(process.stdout)
    expected_words, expected_numbers = words_and_numbers(f"{diagnosis}\n{comment}")
    assert words == expected_words
    # another processor may round the last digit that is printed
    assert numbers == pytest.approx(expected_numbers, rel=0.02, abs=0.002)


def test_the_case_file_is_a_case_that_the_audit_takes(case_file):
    audit = harness.audit(harness.load_case(str(case_file)), during_training=False)
    assert audit.case == "mine"
    assert audit.terms == ("reconstruction", "l1")
    assert not audit.faults
    assert "input_offset" in audit.rules  # the change that the README says works takes this offset away


def test_the_experiment_file_plans_the_case_as_it_is_and_its_remedies(case_file):
    plan = harness.plan(case_file.with_name("mine.yaml"))
    assert (plan.members, plan.not_applicable) == (4 * 32, [])


def test_the_answer_in_the_readme_is_about_the_shipped_quickstart():
    plan = harness.plan(ROOT / "experiments/quickstart.yaml")
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"{plan.members} models, {len(plan.variants)} variants x {plan.seeds} seeds" in text
    assert text.count(f"of {plan.seeds}") >= 3


def anchors(page: Path) -> set[str]:
    """Anchors of a page: those of its headings, as GitHub makes them, and those that are written out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def broken_links(page: Path) -> list[str]:
    """Relative links and pictures of a page that lead to no file, or to no heading of it."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^()\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_and_picture_of_a_page_exists(page):
    assert broken_links(page) == []


def test_a_link_to_nothing_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](page.md) [b](#one) [c](#two) ![d](no.png) [e](https://x.org/y) `[f](no.md)`\n")
    assert broken_links(page) == ["#two", "no.png"]


def test_the_index_lists_every_page_once():
    index = (ROOT / "docs/README.md").read_text()
    listed = re.findall(r"\]\(([\w/-]+\.md)\)", index)
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(page for page in pages - {"README.md"} if not re.match(r"rules/[a-z]", page))


TAGS = {"harness.kind", "harness.origin", "harness.key"}  # tags of runs in MLflow, written like names of the package


def missing_names(text: str) -> set[str]:
    """Paths such as `harness/case.py` and dotted names such as `harness.data.split_of` that do not exist."""
    paths = {path.rstrip(".") for path in re.findall(r"\b(?:harness|experiments|tests)/[\w./-]+", text)}
    names = set(re.findall(r"\bharness(?:\.[A-Za-z]\w*)+", text)) - TAGS
    return {path for path in paths if not (ROOT / path).exists()} | {name for name in names if not resolves(name)}


def resolves(name: str) -> bool:
    """True for a module of the package, or an attribute of one; of a module whose library is absent, what it defines."""
    with contextlib.suppress(ImportError, AttributeError):
        pkgutil.resolve_name(name)
        return True
    if (ROOT / f"{name.replace('.', '/')}.py").exists():
        return True
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("harness"):
            return False
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        return bool(re.search(rf"^(class|def) {attribute}\b", source, re.MULTILINE))
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_and_name_of_the_package_on_a_page_exists(page):
    assert missing_names(page.read_text()) == set()


def test_a_name_of_nothing_is_noticed():
    text = (
        "`harness/case.py`, experiments/nowhere.yaml, `harness.penalties.bernoulli_kl_of_logits`, `harness.watch_it`."
    )
    assert missing_names(text) == {"experiments/nowhere.yaml", "harness.watch_it"}
