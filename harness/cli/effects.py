"""`harness effects EXPERIMENT`: effect of every level on collapse, from stored results."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.output import Json, console, print_json, stdout_to_stderr
from harness.errors import HarnessError

if TYPE_CHECKING:
    from rich.table import Table

    from harness.effects import Effect, Effects


def effects(
    experiment: Annotated[str, typer.Argument(help="An experiment that was run: its YAML file, or its name.")],
    outcome: Annotated[str, typer.Option(help="collapsed, live_fraction, r2 or r2_not_collapsed.")] = "collapsed",
    json: Json = False,
) -> None:
    """Estimate the effect of each level on collapse, with intervals over seeds, from stored results."""
    from harness.effects.outcomes import OUTCOMES
    from harness.errors import did_you_mean

    if outcome not in OUTCOMES:
        raise HarnessError(f"--outcome: {did_you_mean('outcome', outcome, OUTCOMES)}")
    from harness.experiment import effects as stored_effects

    with stdout_to_stderr(json):
        analysis = stored_effects(experiment)
    if json:
        print_json(analysis.to_dict())
        return
    _show(analysis, outcome)


def _show(analysis: "Effects", outcome: str) -> None:
    from harness.report.answer import summarize

    terminal = console()
    for line in summarize(analysis):
        terminal.print(line, markup=False)
    for title, rows in (
        ("Effects", analysis.effects),
        ("Interactions", analysis.interactions),
        ("Contrasts", analysis.contrasts),
    ):
        selected = [effect for effect in rows if effect.outcome == outcome]
        if selected:
            terminal.print(_table(f"{title} on {outcome}", selected))
    for sentence in analysis.design.sentences:
        terminal.print(sentence, markup=False)


def _table(title: str, effects: "Sequence[Effect]") -> "Table":
    """Build a table that fits 80 columns: only the names of effects may wrap."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("effect")
    for name, width in (("estimate", 8), ("95 % interval", 16), ("adjusted p", 10), ("seeds", 5), ("confirmed", 9)):
        table.add_column(name, justify="left" if name == "confirmed" else "right", min_width=width)
    for effect in effects:
        table.add_row(*map(Text, _cells(effect)))
    return table


def _cells(effect: "Effect") -> list[str]:
    bounds = f"{effect.low:+.3f} to {effect.high:+.3f}" if effect.low < effect.high else effect.interval or effect.note
    return [
        f"{effect.factor} {effect.level} (against {effect.baseline})",
        f"{effect.estimate:+.3f}" if effect.estimable else "-",
        bounds,
        f"{effect.p_adjusted:.2g}" if math.isfinite(effect.p_adjusted) else "-",
        str(effect.seeds),
        "yes" if effect.confirmed else "",
    ]
