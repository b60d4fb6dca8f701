"""The whole benchmark in one run: training, logging, start-up and end to end; one table, one JSON.

    python experiments/benchmarks/bench.py [--quick] [--output mlruns/bench.json] [--members 100 1000 5000]

Each part can be run alone: training_speed.py, logging_rate.py, start_up.py, end_to_end.py. Rows appear on stderr as they
are measured, and the JSON holds what there is so far; the table comes last.
"""

import argparse
import json
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import end_to_end
import logging_rate
import start_up
import training_speed
from machine import facts
from rows import Row
from table import table

WIDTH = 140  # of the notes
NOTES = (
    "Median, lowest and highest of the repetitions; contenders take turns within each. Only one is measured at a time.",
    "MB: the most memory held; in training the sum over the processes, elsewhere the largest process.",
    "Training: a model-step is one member, one batch of 64, one step of Adam. The whole machine: the threads that torch and"
    " JAX choose; of the harness a process a core, each with its own share of the members in stacks of at most 64 (the"
    " copies that fill up a stack are not counted).",
    "End to end: training alone right before and right after each run, on as many workers; a run has a driver beside"
    " them; 'the same again' finds it finished. Processor seconds are in the JSON.",
)


def measured(quick: bool, sizes: Sequence[int]) -> Iterator[Row]:
    """Every row of every part."""
    yield from training_speed.measured(quick)
    repetitions, epochs = (3, 3) if quick else (5, 30)
    with tempfile.TemporaryDirectory() as place:
        results = logging_rate.finished(Path(place), epochs)
        yield from logging_rate.measured(results, repetitions)
        yield from start_up.measured(Path(place), repetitions)
    yield from end_to_end.measured(sizes, epochs, 1 if quick else None)


def notes(rows: Sequence[Row]) -> list[str]:
    """What the table alone does not say."""
    compiled: dict[int | None, float] = {}
    for row in rows:
        if "compile_seconds" in row.more:
            compiled[row.members] = max(row.more["compile_seconds"], compiled.get(row.members, 0))
    if not compiled:
        return [*NOTES, "JAX is not installed (the extra 'bench' brings it): its rows are absent."]
    told = ", ".join(f"{seconds:.1f} ({members:,})" for members, seconds in compiled.items())
    return [*NOTES, f"JAX: compiling, not counted, takes at most so many seconds (members): {told}."]


def document(rows: Sequence[Row], quick: bool) -> str:
    """The JSON."""
    whole = {"machine": facts(rows), "quick": quick, "notes": notes(rows), "rows": [row.document() for row in rows]}
    return json.dumps(whole, indent=1)


def printed(rows: Sequence[Row]) -> str:
    """The machine, the table, the notes."""
    known = facts(rows)
    libraries = ", ".join(f"{name} {known[name]}" for name in ("torch", "jax", "mlflow") if known[name])
    head = f"{known['processor']}, {known['cores']} cores; Python {known['python']}, {libraries}; {known['date']}"
    below = (textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes(rows))
    return "\n".join([head, "", table(rows), *below])


def main() -> None:
    """Measure all, print one table, write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, epochs and repetitions: minutes, not hours")
    parser.add_argument("--output", type=Path, default=Path("mlruns/bench.json"))
    parser.add_argument(
        "--members", type=int, nargs="+", choices=sorted(end_to_end.SEEDS), help="of the end-to-end part"
    )
    options = parser.parse_args()
    sizes = options.members or ([100] if options.quick else sorted(end_to_end.SEEDS))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for row in measured(options.quick, sizes):
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
        options.output.write_text(document(rows, options.quick))
    print(printed(rows))


if __name__ == "__main__":
    main()
