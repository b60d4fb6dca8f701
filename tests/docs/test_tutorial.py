"""The proof of the tutorial: centering the inputs works on fresh seeds, as the page says."""

import pytest
from blocks import ROOT, run_page

import harness


@pytest.mark.service
def test_centering_the_inputs_works_on_fresh_seeds(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    list(run_page(ROOT / "docs/tutorial/dead-autoencoder.md", tmp_path))  # writes the files of the page
    prescription = harness.prescribe(
        str(tmp_path / "digits_case.py"), budget="60s", seeds=24, try_only=["inputs=centred"], workers=0
    )
    assert prescription.wrong
    assert prescription.best.remedy["inputs"] == "centred"  # beside it, the best of three learning rates
    assert prescription.best.word == "works"
