"""False alarms on healthy codes and misses on planted faults: what the diagnosis says of codes whose truth is known.

    OMP_NUM_THREADS=1 python experiments/benchmarks/false_alarms.py

writes docs/evidence/false-alarms.md, cell by cell, and takes most of an hour; `--draws 10 --numbers 4e6` takes minutes.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from known_codes import HEALTHY, PLANTED, REFERRED, Healthy, Planted, Referred

from harness import diagnose
from harness.diagnosis import Diagnosis
from harness.measures.statistics import wilson

PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "false-alarms.md"
ROWS = (50, 200, 1000, 5000, 20000)
UNITS = (4, 64, 1024)
AT_ONCE = 4_000_000
LARGE = 2_000_000  # numbers of a draw above which a cell gets fewer draws
DRAWS_OF_A_REFERENCE = 10
UNDECIDED = {"never_fired", "rare_insufficient", "not_testable"}
LIMITS = {"rank_not_testable", "nonlinear_redundancy_not_searched"}


@dataclass
class Tally:
    """Counts over draws."""

    layers: int = 0
    wrong_layers: int = 0
    units: int = 0
    wrong_units: int = 0
    undecided: int = 0
    examples: set[str] = field(default_factory=set)

    def add(self, found: Diagnosis, right: frozenset[str]) -> None:
        wrong = [unit for unit in found.units if unit.verdict not in right | UNDECIDED or _false_flags(unit.flags)]
        undecided = sum(unit.verdict in UNDECIDED for unit in found.units)
        # a layer whose only lack is units on which the rows cannot decide is undecided, not wrong
        layer = (found.verdict != "healthy" and (bool(wrong) or not undecided)) or bool(set(found.flags) - LIMITS)
        self.layers, self.wrong_layers = self.layers + 1, self.wrong_layers + layer
        self.units, self.wrong_units = self.units + len(found.units), self.wrong_units + len(wrong)
        self.undecided += undecided
        self.examples |= {str(unit.verdict) for unit in wrong} | (
            {str(found.verdict), *found.flags} - LIMITS if layer else set()
        )


def _false_flags(flags: Sequence[str]) -> bool:
    return any(flag.startswith(("duplicate_of", "stochastic", "always_on", "unused")) for flag in flags)


@dataclass
class Page:
    """The page as far as it has been made: lines of each table by what they are about, in the order of the page."""

    path: Path
    command: str
    began: float = field(default_factory=time.time)
    lines: dict[str, dict[tuple[object, ...], str]] = field(default_factory=lambda: {name: {} for name in HEADS})

    def add(self, table: str, about: tuple[object, ...], line: str) -> None:
        print(f"{time.time() - self.began:6.0f} s {line}", file=sys.stderr, flush=True)
        self.lines[table][about] = line
        self.write("so far; it goes on")

    def write(self, state: str) -> None:
        tables = {name: "\n".join([HEADS[name], *self._sorted(name)]) for name in HEADS}
        minutes = f"{(time.time() - self.began) / 60:.0f} minutes of one core {state}".strip()
        self.path.write_text(TEXT.format(command=self.command, minutes=minutes, **tables))

    def _sorted(self, table: str) -> list[str]:
        names = list(KINDS[table])
        ordered = sorted(self.lines[table], key=lambda about: (names.index(str(about[0])), *about[1:]))
        return [self.lines[table][about] for about in ordered]


def healthy(page: Page, draws: int, numbers: float) -> None:
    """The table of false alarms, small cells first."""
    for rows, units in sorted(((r, u) for r in ROWS for u in UNITS), key=lambda size: size[0] * size[1]):
        done = draws if rows * units <= LARGE else max(1, min(draws, int(numbers / (rows * units))))
        for name, kind in HEALTHY.items():
            tally = _tally(kind, rows, units, done)
            wrong = f" ({', '.join(sorted(tally.examples))})" if tally.examples else ""
            page.add(
                "alarms",
                (name, rows, units),
                f"| {name} | {kind.truth} | {rows} | {units} | {done} | {_rate(tally.wrong_layers, tally.layers)}"
                f"{wrong} | {_rate(tally.wrong_units, tally.units)} | {tally.undecided / tally.units:.2%} |",
            )


def _tally(kind: Healthy, rows: int, units: int, draws: int) -> Tally:
    tally, generator = Tally(), torch.Generator().manual_seed(rows * 10000 + units)
    for count in _pieces(draws, rows * units):
        code = kind.draw(torch.randn(count, rows, units, generator=generator))
        for found in diagnose(code, activation=kind.activation, members=True):
            tally.add(found, kind.units)
    return tally


def _pieces(draws: int, numbers: int) -> Iterator[int]:
    step = max(1, AT_ONCE // numbers)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def planted(page: Page, draws: int) -> None:
    """The table of misses."""
    for name, fault in PLANTED.items():
        for rows in ROWS:
            missed = _missed(fault, rows, draws)
            page.add("misses", (name, rows), f"| {name} | {fault.truth} | {rows} | {draws} | {_rate(missed, draws)} |")


def _missed(fault: Planted, rows: int, draws: int) -> int:
    missed, generator = 0, torch.Generator().manual_seed(rows)
    for count in _pieces(draws, rows * 20):
        code, more = fault.draw(generator, count, rows)
        missed += sum(
            not fault.found(each) for each in diagnose(code, activation=fault.activation, members=True, **more)
        )
    return missed


def referred(page: Page, draws: int) -> None:
    """The table of dependence flags; a reference is drawn anew every ten draws."""
    for name, kind in REFERRED.items():
        for rows in ROWS[:-1]:
            first, others = _flags(kind, rows, draws)
            missed = f"{_rate(draws - first['dependent'], draws)} | {first['negligible']}" if kind.first else " | "
            total = sum(others.values())
            page.add(
                "flags",
                (name, rows),
                f"| {name} | {kind.truth} | {rows} | {draws} | {_rate(others['dependent'], total)} |"
                f" {others['negligible'] / total:.1%} | {others['inconclusive'] / total:.1%} | {missed} |",
            )


def _flags(kind: Referred, rows: int, draws: int) -> tuple[Counter[str], Counter[str]]:
    """How often the first unit, if something is planted in it, and the units that share nothing have which flag."""
    generator = torch.Generator().manual_seed(rows)
    first: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for start in range(0, draws, DRAWS_OF_A_REFERENCE):
        reference = kind.reference(generator, rows)
        code = torch.randn(min(DRAWS_OF_A_REFERENCE, draws - start), rows, 4, generator=generator)
        if kind.first:
            code[..., 0] = kind.first(reference, code[..., 0])
        for found in diagnose(code, activation="none", factors={"it": reference}, members=True):
            flags = [unit.references["it"].flag for unit in found.units]
            planted_ones = 1 if kind.first else 0
            first.update(flags[:planted_ones])
            others.update(flags[planted_ones:])
    return first, others


def _rate(count: int, total: int) -> str:
    low, high = wilson(count, total)
    return f"{count}/{total} [{float(low):.4f}, {float(high):.4f}]"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--draws", type=int, default=200, help="draws a cell")
    arguments.add_argument("--numbers", type=float, default=2e7, help="most numbers of a cell of more than 2e6 a draw")
    arguments.add_argument("--page", type=Path, default=PAGE, help="where the page is written")
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    command = f"python experiments/benchmarks/false_alarms.py --draws {asked.draws} --numbers {asked.numbers:g}"
    page = Page(asked.page, command)
    referred(page, asked.draws)
    planted(page, asked.draws)
    healthy(page, asked.draws, asked.numbers)
    page.write("")


HEADS = {
    "alarms": "| code | population | rows | units | draws | wrong layers | wrong units | undecided units |\n"
    "|---|---|---:|---:|---:|---|---|---:|",
    "misses": "| fault | population | rows | draws | missed |\n|---|---|---:|---:|---|",
    "flags": "| reference | population | rows | draws | independent units called dependent | negligible | inconclusive |"
    " planted dependence missed | of these negligible |\n|---|---|---:|---:|---|---:|---:|---|---:|",
}
KINDS = {"alarms": HEALTHY, "misses": PLANTED, "flags": REFERRED}

TEXT = """# False alarms and misses

Made by `{command}` ({minutes}).

Every generator states what holds in the population. A verdict is *wrong* when it contradicts that; it is *undecided*
when it says that the rows do not decide (`never_fired`, `rare_insufficient`, `not_testable`): of a unit that is on for
1 % of the rows, 50 rows show nothing three times in five, and that is the right answer. A layer is wrong when its
verdict rests on a wrong unit, or on no unit at all, or when it carries a flag that the population does not bear out.
Rates with Wilson's 95 % interval. Layers of 5000 or 20,000 rows and 1024 units have fewer draws than the others, because
one such draw is 5 or 20 million numbers and takes seconds; the column says how many, and the units of a draw are
independent, so that the rate of wrong units is known well there too.

## Healthy codes

{alarms}

A unit on for 1 % of the rows never fires on 400 rows once in 56 draws: `dead` is claimed from 368 rows on, where the
95 % bound of its frequency falls below 1 %, so that a frequency of exactly 1 % is the worst case of that claim. On 1000
rows 43 such units in a million never fire (.99^1000): of layers with 1024 of them one in 23 has one, and is then wrong.

## Planted faults

Layers of 8 units; the other units are healthy.

{misses}

Few rows miss what they cannot show: noise on 50 rows does not prove that nothing repeats, and the layer is called
`healthy` with every unit flagged `stochastic`; "dead" is said from 368 rows on, and `never_fired` below them counts as
found here.

## Dependence on a reference

Layers of 4 linear units of normal values. Where nothing is planted all four are independent of the reference, else the
first depends on it as stated and three are independent. *Missed* is a planted dependence that is not called
`dependent`: `inconclusive`, where the rows do not decide, or `negligible`, which is wrong. A reference is drawn anew for
every ten draws. p is corrected over the four units of a layer, which lets one layer in twenty have a false `dependent`.

{flags}
"""

if __name__ == "__main__":
    main()
