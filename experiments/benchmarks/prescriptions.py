"""Write docs/evidence/prescriptions.md: prescriptions for sick cases with a known cure, and for healthy cases.

    python experiments/benchmarks/prescriptions.py [--budget 2m] [--cases dead_bias,forum] [--output FILE]

Each case is prescribed by the command line, in a process of its own and with two workers. The known cure is trained on the
same fresh seeds: a row is right if the first remedy contains the known cure, or fails at most as often with an R2 at
most 0.05 lower. A healthy case is right if nothing is prescribed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from harness.case import load_case
from harness.prescription.proof import FRESH
from harness.prescription.trial import Trial
from harness.remedies import why_not_applicable

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_suffix("")
OUTPUT = ROOT / "docs" / "evidence" / "prescriptions.md"
LATEST = 240.0  # processor seconds that a prescription may take: two minutes of two cores
ALLOWED_LOSS = 0.05  # of R2

# the known cure of each sick case: one change that repairs the planted fault
SICK: dict[str, Mapping[str, Any]] = {
    "forum": {"activation": "leaky_relu"},
    "sibling_count": {"output_activation": "linear"},
    "sibling_overwrite": {"output_activation": "linear"},
    "dead_bias": {"bias_init": "zero"},
    "dead_hidden": {"bias_init": "zero"},
    "some_dead": {"bias_init": "zero"},
    "dead_sequential": {"bias_init": "zero"},
    "saturated_sigmoid": {"batchnorm": "on"},
    "saturated_tanh": {"bias_init": "zero"},
    "strong_l1": {"beta": 0.01},
    "strong_kl": {"penalty": "none"},
    "kl_sigmoid_strong": {"penalty": "none"},
    "offset_inputs": {"inputs": "centred"},
    "offset_sigmoid": {"inputs": "centred"},
    "relu_output": {"output_activation": "linear"},
    "sigmoid_output": {"output_activation": "linear"},
    "high_rate": {"learning_rate": 0.01},
    "low_rate": {"learning_rate": 0.01},
    "small_weights": {"batchnorm": "on"},
    "large_weights": {"batchnorm": "on"},
    "posterior_collapse": {"beta": 0.2},
    "posterior_collapse_averaged": {"beta": 0.1},
    "sparse_strong_l1": {"beta": 0.02},
    "sparse_dead": {"bias_init": "zero"},
    "sparse_offset": {"inputs": "centred"},
}
HEALTHY = (
    *("healthy_leaky", "healthy_sigmoid", "healthy_tanh", "healthy_linear", "healthy_wide", "healthy_l1"),
    *("healthy_positive", "healthy_sparse", "healthy_vae", "healthy_normalized"),
)


@dataclass(frozen=True)
class Row:
    """A prescribed case.

    Args:
        case: its name.
        cure: the known cure; None for a healthy case.
        document: `harness prescribe --json`; empty if the command failed.
        seconds: processor time of the command and its workers.
        cure_failed, cure_r2: failed share and mean R2 of the known cure on the fresh seeds.
        verdict: "known cure", "as good", "wrong", or for a healthy case "nothing prescribed" or "wrong".
    """

    case: str
    cure: Mapping[str, Any] | None
    document: Mapping[str, Any]
    seconds: float
    cure_failed: float | None
    cure_r2: float | None
    verdict: str


def prescribed(name: str, budget: str, workers: int) -> tuple[dict[str, Any], float]:
    """Run the command on a case in an empty folder, and return its document and its processor time."""
    path = FOLDER / f"{name}.py"
    reference = str(path) if path.is_file() else name
    command = [
        sys.executable,
        "-m",
        "harness",
        "prescribe",
        reference,
        "--budget",
        budget,
        "--json",
        "--workers",
        str(workers),
    ]
    started = _processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = _processor_seconds() - started
    if process.returncode not in (0, 1):
        print(f"{name}: {process.stderr[-500:]}", file=sys.stderr)
        return {}, seconds
    return json.loads(process.stdout), seconds


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def row_of(name: str, cure: Mapping[str, Any] | None, budget: str, workers: int) -> Row:
    """Prescribe a case, and compare its first remedy with the known cure on the fresh seeds."""
    document, seconds = prescribed(name, budget, workers)
    if cure is None:
        right = document.get("wrong") is False and not document.get("remedies")
        return Row(name, None, document, seconds, None, None, "nothing prescribed" if right else "wrong")
    remedies = document.get("remedies", [])
    first = next((remedy for remedy in remedies if remedy["word"] in ("works", "helps")), None)
    if first is None:
        return Row(name, cure, document, seconds, None, None, "wrong")
    path = FOLDER / f"{name}.py"
    reference = str(path) if path.is_file() else name
    case = load_case(reference)
    failed, r2 = None, None
    if why_not_applicable(case, cure) is None:
        trial, seeds = Trial(case, reference, 0), range(FRESH, FRESH + first["seeds"])
        trial.train([cure], seeds)
        records = trial.results(cure, seeds)
        failed = mean(record.failed is not False for record in records)
        r2 = mean(record.r2 or 0.0 for record in records)
    if set(cure) <= set(first["remedy"]):
        return Row(name, cure, document, seconds, failed, r2, "known cure")
    as_often = failed is not None and first["failed_after"] / first["seeds"] <= failed
    as_well = r2 is not None and (first["r2_after"] or 0.0) >= r2 - ALLOWED_LOSS
    return Row(name, cure, document, seconds, failed, r2, "as good" if as_often and as_well else "wrong")


def named(change: Mapping[str, Any] | None) -> str:
    """Name of a change."""
    return "" if change is None else ", ".join(f"`{name}: {_level(level)}`" for name, level in change.items())


def _level(level: Any) -> str:
    return f"{level:.3g}" if isinstance(level, float) else str(level)


def table(rows: Sequence[Row]) -> str:
    """Markdown of the sick and of the healthy cases."""
    lines = [
        "| case | known cure | first remedy | word | failed | R2 | known cure: failed, R2 | processor seconds | |",
        "|---|---|---|---|---|---|---|---:|---|",
    ]
    for row in rows:
        first = next((one for one in row.document.get("remedies", []) if one["word"] in ("works", "helps")), None)
        result = ("", "", "", "")
        if first is not None:
            result = (
                named(first["remedy"]),
                first["word"],
                f"{first['failed_before']} -> {first['failed_after']} of {first['seeds']}",
                f"{first['r2_before'] or 0:.2f} -> {first['r2_after'] or 0:.2f}",
            )
        cured = "" if row.cure_failed is None else f"{row.cure_failed:.2f}, {row.cure_r2:.2f}"
        lines.append(
            f"| {row.case} | {named(row.cure)} | {' | '.join(result)} | {cured} | {row.seconds:.0f} | {row.verdict} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prescribe all cases, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--cases", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--rows", type=Path, help="also write the rows as JSON")
    parser.add_argument("--join", type=Path, nargs="*", default=[], help="rows of earlier runs, instead of running")
    options = parser.parse_args()
    if options.join:
        rows = [Row(**row) for path in options.join for row in json.loads(path.read_text(encoding="utf-8"))]
        order = [*SICK, *HEALTHY]
        rows.sort(key=lambda row: order.index(row.case))
        options.output.write_text(page(rows, options.budget), encoding="utf-8")
        return
    cases: dict[str, Mapping[str, Any] | None] = {**SICK, **dict.fromkeys(HEALTHY)}
    if options.cases:
        cases = {name: cases[name] for name in options.cases.split(",")}
    rows = []
    for name, cure in cases.items():
        rows.append(row_of(name, cure, options.budget, options.workers))
        if options.rows:
            options.rows.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
        print(f"{name}: {rows[-1].verdict} ({rows[-1].seconds:.0f} s) {rows[-1].document.get('headline')}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(rows, options.budget), encoding="utf-8")


def page(rows: Sequence[Row], budget: str) -> str:
    """The page, with the counts first."""
    sick, healthy = [row for row in rows if row.cure], [row for row in rows if not row.cure]
    right = sum(row.verdict != "wrong" for row in sick)
    quiet = sum(row.verdict != "wrong" for row in healthy)
    late = [row.case for row in rows if row.seconds > LATEST]
    return f"""# Prescriptions for cases with a known cure

Made by `python experiments/benchmarks/prescriptions.py --budget {budget}`. The cases are in
`experiments/benchmarks/prescriptions/`, and three are shipped. Each is prescribed with two workers in a process of its
own.

- The known cure, or a remedy that is proved to be as good, is first for **{right} of {len(sick)}** sick cases.
- Nothing is prescribed for **{quiet} of {len(healthy)}** healthy cases.
- More than {LATEST:.0f} processor seconds, two minutes of two cores: {", ".join(late) or "none"}.

*As good*: on the same fresh seeds the first remedy fails at most as often as the known cure, with an R2 at most
{ALLOWED_LOSS} lower. *Failed* and *R2* compare the model as it is with the model under the first remedy.

## Sick cases

{table(sick)}

## Healthy cases

{table(healthy)}
"""


if __name__ == "__main__":
    main()
