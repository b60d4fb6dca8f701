"""Wall time of `harness run` against the time that training alone takes, for 100, 1000 and 5000 members.

    python experiments/benchmarks/end_to_end.py --members 100 1000 --repetitions 3

The experiment is the source case: penalties, biases, activations and betas in a full grid, 30 epochs, a store of its own
in a folder that is removed afterwards. Training alone (training_alone.py) is a program that trains the same members in
the same stacks with as many workers, and does nothing else; it is measured right before and right after the run, because
the machine's speed drifts. Both start from nothing; `overhead_loaded` compares the run with training from the moment at
which the libraries are loaded. "The same again" asks for the finished experiment once more.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from processes import HARNESS, Ended, cores, ended, largest
from rows import Row

SEEDS = {100: 5, 1000: 25, 5000: 125}
# a run of 5000 takes ten minutes, and training them twice as long again: it evens out moments of the machine by itself
REPETITIONS = {100: 3, 1000: 2, 5000: 1}
Name = tuple[str, int, int]  # contender, members, epochs
ALONE = Path(__file__).with_name("training_alone.py")


def experiment(members: int, epochs: int) -> str:
    """A grid of so many members: 20 variants of 5 seeds, or 40 variants of 25 or 125."""
    biases = "[default]" if members == 100 else "[default, zero]"
    return (
        f"name: members_{members}\ncase: forum\nfactors:\n  penalty: [as_posted, kl_sigmoid_bottleneck]\n"
        f"  bias_init: {biases}\n  activation: [relu, leaky_relu]\n  beta: [0.001, 0.003, 0.01, 0.03, 0.1]\n"
        f"seeds: {SEEDS[members]}\ntrain: {{epochs: {epochs}}}\n"
    )


def written(folder: Path, members: int, epochs: int) -> Path:
    """The experiment's file in this folder."""
    file = folder / f"members_{members}.yaml"
    file.write_text(experiment(members, epochs))
    return file


def run(file: Path) -> Ended:
    """`harness run` in the file's folder, from nothing or on what is there."""
    done = ended([*HARNESS, "run", str(file), "--json", "--workers", str(cores())], file.parent)
    assert json.loads(done.output)["failed"] == 0, done.output
    return done


def training_alone(file: Path) -> dict[str, float]:
    """Wall seconds, all and those after loading, processor seconds and memory of training alone."""
    done = ended([sys.executable, str(ALONE), str(file), str(cores())])
    return {"seconds": done.seconds, **json.loads(done.output), "cpu_seconds": done.cpu}


def once(members: int, epochs: int) -> dict[str, Any]:
    """Training alone, the run, the same again, and training alone once more."""
    with tempfile.TemporaryDirectory() as place:
        file = written(Path(place), members, epochs)
        before = training_alone(file)
        done, again = run(file), run(file)
        return {"alone": (before, training_alone(file)), "run": done, "again": again}


def measured(sizes: Sequence[int], epochs: int = 30, repetitions: int | None = None) -> Iterator[Row]:
    """Three rows a size."""
    for members in sizes:
        found = [once(members, epochs) for _ in range(repetitions or REPETITIONS[members])]
        alone = [each for one in found for each in one["alone"]]
        yield _row(
            ("training alone", members, epochs),
            cores(),
            [each["seconds"] for each in alone],
            max(each["peak_mb"] for each in alone),
            {name: [round(each[name], 2) for each in alone] for name in ("loaded_seconds", "cpu_seconds")},
        )
        more = {
            "overhead": [_overhead(one, "seconds") for one in found],
            "overhead_loaded": [_overhead(one, "loaded_seconds") for one in found],
            "ms_a_member": _a_member(found, members),
        }
        workers_and_driver = cores() + 1
        yield _commands(("harness run", members, epochs), [one["run"] for one in found], workers_and_driver, more)
        yield _commands(("the same again", members, epochs), [one["again"] for one in found], 1, {})


def _overhead(one: dict[str, Any], clock: str) -> float:
    return round(one["run"].seconds / statistics.mean(each[clock] for each in one["alone"]) - 1, 3)


def _a_member(found: Sequence[dict[str, Any]], members: int) -> float:
    return round(1000 * statistics.median(one["run"].seconds for one in found) / members, 1)


def _commands(name: Name, done: Sequence[Ended], processes: int, more: dict[str, Any]) -> Row:
    cpu = {"cpu_seconds": [round(each.cpu, 2) for each in done]}
    return _row(name, processes, [each.seconds for each in done], largest(done), {**cpu, **more})


def _row(name: Name, processes: int, seconds: list[float], peak: float | None, more: dict[str, Any]) -> Row:
    contender, members, epochs = name
    subject = f"source, {epochs} epochs"
    return Row("end to end", subject, contender, "s", tuple(seconds), members, processes, 1, peak, more)


def main() -> None:
    """Print a line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000], choices=sorted(SEEDS))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repetitions", type=int, help=f"by default {REPETITIONS}")
    options = parser.parse_args()
    for row in measured(options.members, options.epochs, options.repetitions):
        print(row, json.dumps(row.more), flush=True)


if __name__ == "__main__":
    main()
