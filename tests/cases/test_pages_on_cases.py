"""The code on the page about cases is a case that runs, in 25 lines."""

import re
from pathlib import Path

import pytest

from harness.grid import load_experiment
from harness.planning.plan import plan

ROOT = Path(__file__).parents[2]


def test_the_page_s_case_is_short_and_can_be_planned(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/guides/cases.md").read_text(), re.DOTALL).group(1)
    assert len(code.strip().splitlines()) <= 25
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "e.yaml").write_text("name: e\ncase: mine.py\nfactors: {batchnorm: [off, on], beta: [0.1]}\nseeds: 2\n")
    found = plan(load_experiment(tmp_path / "e.yaml"))
    assert (found.members, found.not_applicable, found.stacks[0].alone) == (4, [], None)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_can_be_planned_without_a_remedy_refused(path):
    assert plan(load_experiment(path)).not_applicable == []
