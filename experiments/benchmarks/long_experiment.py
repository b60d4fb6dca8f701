"""Wall time and memory of effects, report and store for long experiments, and of a finished experiment run again.

    python experiments/benchmarks/long_experiment.py [--members 5000 20000] [--results FOLDER]

A short experiment, two seeds of 40 variants over 20 epochs, is trained once, or a finished one is read. Its members are
copied under further seeds, so that no long training is needed. `harness sync` then makes effects, report and store of
all members, and `harness run` is called on the finished experiment. Each command is a process of its own.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from end_to_end import run
from processes import HARNESS, ended
from rows import Row

from harness.grid import load_experiment
from harness.results import MemberRecord, read_manifest, read_records, write_manifest, write_stack
from harness.results.packed import PackedJson

AT_ONCE = 64  # members per file, as a run writes them
DESIGN = (
    "case: forum\ndata: patches\nfactors:\n  penalty: [as_posted, kl_sigmoid_bottleneck]\n  bias_init: [default, zero]\n"
    "  activation: [relu, leaky_relu]\n  beta: [0.001, 0.003, 0.01, 0.03, 0.1]\ntrain: {epochs: 20, learning_rate: 0.01}\n"
)


def experiment_file(folder: Path, name: str, seeds: int) -> Path:
    """Write the experiment's file."""
    file = folder / f"{name}.yaml"
    file.write_text(f"name: {name}\n{DESIGN}seeds: {seeds}\n")
    return file


def copied(folder: Path, base: Path, members: int) -> tuple[Path, int]:
    """Write results of so many members, copies of those in `base`; return the experiment's file and their number."""
    from harness.experiment.state import load_state

    file = experiment_file(folder, f"members_{members}", members // 40)
    results = folder / "mlruns" / "results" / file.stem
    results.mkdir(parents=True)
    records: dict[str, list[MemberRecord]] = {}
    for record in read_records(base)[0]:
        records.setdefault(record.variant, []).append(record)
    state = load_state(load_experiment(file), results)
    copies = [
        _copy(records[variant][seed % len(records[variant])], key, seed)
        for (variant, seed, _split), key in state.keys.items()
    ]
    for start in range(0, len(copies), AT_ONCE):
        write_stack(results, copies[start : start + AT_ONCE])
    audit = {"audit": audit} if (audit := read_manifest(base).get("audit")) else {}
    write_manifest(results, {**state.manifest, **audit})
    return file, len(copies)


def _copy(record: MemberRecord, key: str, seed: int) -> MemberRecord:
    """A member under another seed; only the first seed of a variant has examples."""
    examples = record.examples if seed == 0 else PackedJson()
    return replace(record, key=key, seed=seed, examples=examples)


def measured(sizes: Sequence[int], base: Path | None = None) -> Iterator[Row]:
    """Two rows per size: effects, report and store; and the finished experiment run again."""
    with tempfile.TemporaryDirectory() as place:
        if base is None:
            run(experiment_file(Path(place), "base", 2))
            base = Path(place) / "mlruns" / "results" / "base"
        for size in sizes:
            folder = Path(place) / str(size)
            folder.mkdir()
            file, members = copied(folder, base, size)
            synced = ended([*HARNESS, "sync", str(file)], folder)
            report = folder / "mlruns" / "reports" / file.stem / "report.html"
            more = {"cpu_seconds": synced.cpu, "report_mb": report.stat().st_size / 1e6, "store_mb": _store_mb(folder)}
            made = "effects, report and store"
            yield Row("long", made, "harness sync", "s", (synced.seconds,), members, peak_mb=synced.peak_mb, more=more)
            again = [ended([*HARNESS, "run", str(file), "--json"], folder) for _ in range(3)]
            assert json.loads(again[-1].output)["trained"] == 0
            seconds = tuple(command.seconds for command in again)
            peak, more = again[-1].peak_mb, {"cpu_seconds": again[-1].cpu}
            yield Row("long", "finished, run again", "harness run", "s", seconds, members, peak_mb=peak, more=more)


def _store_mb(folder: Path) -> float:
    return (folder / "mlruns" / "mlflow.db").stat().st_size / 1e6


def main() -> None:
    """Print one line per row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[5000, 20000])
    parser.add_argument("--results", type=Path, help="results folder of a finished experiment of the same design")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for row in measured(arguments.members, arguments.results and arguments.results.resolve()):
        peak = "" if row.peak_mb is None else f", {row.peak_mb:.0f} MB"
        more = "".join(f", {name} {value:.2f}" for name, value in row.more.items())
        print(f"{row}{peak}{more}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
