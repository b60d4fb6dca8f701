"""Half of a surrogate pair, which no file can hold, is refused where it comes in."""

import pytest
import torch
from torch import nn

from harness.case import Case
from harness.errors import HarnessError
from harness.grid import load_experiment
from harness.loss_terms import check_terms


@pytest.mark.parametrize("line", ['name: "a\\ud800b"', '"na\\udfffme": x'])
def test_an_experiment_with_half_of_a_pair_is_refused(tmp_path, line):
    (tmp_path / "x.yaml").write_text(f"case: forum\n{line}\nfactors: {{activation: [relu]}}\nseeds: 1\n")
    with pytest.raises(HarnessError, match=r"x.yaml, line 2: expected text, got half of a surrogate pair in '.*\\ud"):
        load_experiment(tmp_path / "x.yaml")


def test_a_whole_pair_is_text(tmp_path):
    content = 'case: forum\nname: "a\\U0001F600b"\nfactors: {activation: [relu]}\nseeds: 1\n'
    (tmp_path / "x.yaml").write_text(content)
    assert load_experiment(tmp_path / "x.yaml").name == "a\U0001f600b"


def test_a_term_whose_name_has_half_of_a_pair_is_refused():
    case = Case(nn.Identity, lambda: None, lambda model, batch: {}, "0")
    with pytest.raises(
        HarnessError, match=r"expected names of text, got 'p\\ud800', which has half of a surrogate pair"
    ):
        check_terms(case, {"reconstruction": torch.tensor(1.0), "p\ud800": torch.tensor(1.0)})
    check_terms(case, {"reconstruction": torch.tensor(1.0), "größe": torch.tensor(1.0)})
