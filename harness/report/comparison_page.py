"""Page that compares two experiments."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.effects import Comparison, Effect, analyse, stored_experiment, stored_members
from harness.report import method
from harness.report.answer_lines import AnswerLine, answer_lines, split_line
from harness.report.figure_effects import forest
from harness.report.figure_units import units_picture
from harness.report.format import DASH, bounds, number, probability, share
from harness.report.page_templates import page
from harness.report.style import by_severity, shown_verdict
from harness.report.svg import RenderedFigure, Table
from harness.results import StoredResults, write_atomic, write_json


def write_comparison(first: StoredResults, second: StoredResults, comparison: Comparison, folder: Path) -> Path:
    """Write comparison.html and comparison.json and return the path of comparison.html."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (comparison.first, comparison.second)
    only = [
        (name, list(lacking))
        for name, lacking in zip(names, (comparison.only_first, comparison.only_second), strict=True)
        if lacking
    ]
    values: dict[str, Any] = {
        "title": f"{comparison.first} and {comparison.second}, side by side",
        "answer": [_line(index, text) for index, text in enumerate(comparison.sentences)],
        "variants": variants_table(comparison),
        "figures": _figures(comparison),
        "only": only,
        "sides": [
            _side(results, name, index)
            for index, (results, name) in enumerate(zip((first, second), names, strict=True))
        ],
    }
    write_json(folder / "comparison.json", comparison.to_dict())
    path = folder / "comparison.html"
    write_atomic(path, page("comparison.html", values).encode())
    return path


def variants_table(comparison: Comparison) -> Table:
    """One row per shared variant: both sides and the difference of the share collapsed."""
    header = [
        "variant",
        comparison.first,
        comparison.second,
        "change in share collapsed",
        "95 % interval",
        "adjusted p",
    ]
    rows = []
    for pair in comparison.variants:
        collapsed = next((effect for effect in pair.effects if effect.outcome == "collapsed"), None)
        rows.append([pair.variant, _counted(pair.first), _counted(pair.second), *_difference(collapsed, pair)])
    return Table(header, rows)


def _difference(effect: Effect | None, pair: Any) -> list[str]:
    if effect is not None:
        interval = bounds(effect.low, effect.high) or effect.interval or DASH
        return [number(effect.estimate, 2), interval, probability(effect.p_adjusted)]
    if pair.risk is not None:
        return [number(pair.risk.estimate, 2), bounds(pair.risk.low, pair.risk.high), probability(pair.p_adjusted)]
    return [DASH, DASH, DASH]


def _counted(side: dict[str, Any]) -> str:
    r2 = f", R2 {number(side['r2'], 2)}" if side["r2"] is not None else ""
    return f"{share(side['collapsed'], side['judged'])}{r2}"


def _figures(comparison: Comparison) -> list[RenderedFigure]:
    """Forest plot of the overall effects, then of the effects per variant."""
    overall = [replace(effect, factor="all variants") for effect in comparison.overall]
    by_variant = [replace(effect, factor=pair.variant) for pair in comparison.variants for effect in pair.effects]
    figure = forest([*overall, *by_variant], "pair")
    return [] if figure is None else [figure]


def _side(results: StoredResults, name: str, index: int) -> dict[str, Any]:
    records = stored_members(results)
    drawn = units_picture(records)
    if drawn is not None:
        # two figures on one page: the identifiers in the markup must differ
        drawn = replace(drawn, svg=drawn.svg.replace("units-", f"units{index}-"))
    return {
        "name": name,
        "answer": answer_lines(analyse(records, stored_experiment(results))),
        "verdicts": by_severity(map(shown_verdict, records)),
        "units": drawn,
        "facts": method.reproducibility(results.manifest, records),
    }


def _line(index: int, text: str) -> AnswerLine:
    line = split_line(text)
    return line if line.about else AnswerLine("Compared" if not index else "Also", text)
