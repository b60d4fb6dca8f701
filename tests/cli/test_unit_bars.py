"""The table of units in terminals of several widths: what does not fit is left out, and no word is broken."""

import re
from io import StringIO

import pytest
import torch
from rich.console import Console

from harness import Diagnosis, diagnose
from harness.cli.unit_bars import unit_bars

LIVE = [3, 7, 11, 14, 26, 27, 33]


def scattered(**options: object) -> Diagnosis:
    """Of 40 units 33 are dead, between live ones with several flags."""
    generator = torch.Generator().manual_seed(0)
    code = torch.zeros(2000, 40)
    code[:, LIVE] = torch.relu(torch.randn(2000, 7, generator=generator) + torch.tensor([9.0, 9, 9, 1, 0, 0, 0]))
    code[:, 33], code[5, 27] = code[:, 26], 5000.0
    return diagnose(code, ablation=[1e-5] * 40, **options)


def printed(diagnosis: Diagnosis, width: int, bars: bool = False) -> str:
    out = StringIO()
    Console(file=out, width=width).print(unit_bars(diagnosis, bars))
    return out.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80])
@pytest.mark.parametrize("labeled", [False, True])
def test_a_narrow_terminal_breaks_no_word(width: int, labeled: bool) -> None:
    options = {"labels": torch.arange(2000) % 2} if labeled else {}
    diagnosis = scattered(**options)
    text = printed(diagnosis, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    flags = [flag for unit in diagnosis.units if unit.index in LIVE for flag in unit.flags]
    assert {"always_on", "heavy_tailed", "unused", "duplicate_of=26"} <= set(flags)
    words = re.split(r"[\s,]+", text)
    assert all(words.count(flag) >= flags.count(flag) for flag in flags)
    assert all(f"\n {index} " in text for index in LIVE)


def test_a_wide_terminal_shows_everything() -> None:
    text = printed(scattered(), 150, bars=True)
    assert text.split("\n")[0].split() == ["unit", "verdict", "fires", "mean", "sd", "bits", "flags"]
    assert " 0-2, 4-6, 8-10, 12-13, 15-25, 28-32 and 6 more " in text
    assert "█" in text
    assert len(text.strip().split("\n")) == 1 + 1 + len(LIVE)


def test_only_the_name_of_a_factor_may_be_longer_than_a_column() -> None:
    name = "a_factor_with_a_name_that_is_longer_than_a_column"
    generator = torch.Generator().manual_seed(0)
    code = torch.relu(torch.randn(2000, 2, generator=generator))
    text = printed(diagnose(code, factors={name: code[:, 0]}), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert f"factor_dependent={name}" in "".join(line[30:].strip() for line in text.splitlines())
