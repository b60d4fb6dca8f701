"""How fast members train: a plain PyTorch loop, this harness, and JAX, beside what the machine can do at most.

    python experiments/benchmarks/training_speed.py [--quick]

Model-steps per second: one member, one batch of 64, one optimiser step. Each contender is measured in two set-ups: as its
user would fill the machine (the plain loop and JAX with the threads their libraries choose; the harness with a process a
core, one thread and its own share of the members each), and with one process and one thread. Every set-up has processes
of its own, and they take turns within each repetition, so that a slow moment of the machine hits all of them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from processes import cores, environment
from rows import Row

WORKER = Path(__file__).with_name("training_worker.py")
SOURCE = "source, KL on a sigmoid code"
RELATIVES = (
    *("source, as posted", "source, BatchNorm", "source, dropout"),
    *("digits", "convolutional", "wide 100-400-64"),
)


@dataclass(frozen=True)
class Heat:
    """Contenders that take turns at one workload."""

    workload: str
    contenders: tuple[str, ...] = ("plain loop", "harness")
    members: int = 1
    part: str = "training"
    unit: str = "model-steps/s"
    longer: int = 1  # than the others: each structure takes its time


@dataclass(frozen=True)
class Setup:
    """A contender with so many processes, with one thread each or as many as its library chooses."""

    contender: str
    processes: int
    one_thread: bool


class Team:
    """The processes of one set-up, idle until told to go."""

    def __init__(self, heat: Heat, setup: Setup, seconds: float) -> None:
        self.heat, self.setup = heat, setup
        self.workers = [started(setup.one_thread) for _ in range(setup.processes)]
        task: dict[str, Any] = {"workload": heat.workload, "contender": setup.contender, "members": heat.members}
        task |= {"seconds": heat.longer * seconds, "shares": setup.processes}
        ready = self._asked([json.dumps({**task, "share": share}) for share in range(setup.processes)])
        self.threads, self.compile_seconds = ready[0]["threads"], ready[0]["compile_seconds"]
        self.rates: list[float] = []
        self.cores_used: list[float] = []
        self.peaks: list[float] = []

    def go(self) -> None:
        """All processes at once, from the first word to the last answer."""
        begun = time.perf_counter()
        answers = self._asked(["go"] * len(self.workers))
        seconds = time.perf_counter() - begun
        self.rates.append(sum(each["done"] for each in answers) / seconds)
        self.cores_used.append(sum(each["cpu"] for each in answers) / seconds)
        self.peaks = [each["peak_mb"] for each in answers]

    def close(self) -> None:
        """Let them end."""
        for worker in self.workers:
            worker.communicate()

    def row(self) -> Row:
        """What was measured; memory is the sum over the processes."""
        heat, setup = self.heat, self.setup
        compiled = {} if self.compile_seconds is None else {"compile_seconds": round(self.compile_seconds, 2)}
        more = {"cores_used": round(sum(self.cores_used) / len(self.cores_used), 2), **compiled}
        members = None if heat.part == "machine" else heat.members
        counts = (members, setup.processes, self.threads)
        return Row(
            heat.part, heat.workload, setup.contender, heat.unit, tuple(self.rates), *counts, sum(self.peaks), more
        )

    def _asked(self, lines: list[str]) -> list[dict[str, Any]]:
        for worker, line in zip(self.workers, lines, strict=True):
            worker.stdin.write(line + "\n")  # type: ignore[union-attr]
            worker.stdin.flush()  # type: ignore[union-attr]
        answers = [worker.stdout.readline() for worker in self.workers]  # type: ignore[union-attr]
        if not all(answers):
            raise RuntimeError(f"{self.setup.contender} ended while it was asked for {self.heat.workload}: see above")
        return [json.loads(answer) for answer in answers]


def started(one_thread: bool) -> subprocess.Popen[str]:
    """A worker that waits for its task."""
    own = environment(one_thread)
    return subprocess.Popen([sys.executable, WORKER], env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def setups(heat: Heat) -> list[Setup]:
    """The whole machine, and one process with one thread, unless that is the same."""
    found = []
    for contender in heat.contenders:
        processes = min(cores(), heat.members) if contender == "harness" else 1
        alone = Setup(contender, 1, one_thread=True)
        whole = Setup(contender, processes, one_thread=contender == "harness")
        found += [alone] if whole == alone or cores() == 1 else [whole, alone]
    return found


def heats(quick: bool) -> Iterator[Heat]:
    """What is measured, in this order."""
    yield Heat("matrix products", ("torch",), part="machine", unit="GFLOP/s")
    yield Heat("copies", ("torch",), part="machine", unit="GB/s")
    compared = ("plain loop", "harness", *(["JAX"] if find_spec("jax") else []))
    for members in (1, 64) if quick else (1, 4, 16, 64, 256, 1024):
        yield Heat(SOURCE, compared, members)
    for workload in RELATIVES:
        for members in (64,) if quick else (1, 64):
            yield Heat(workload, members=members)
    yield Heat("40 structures, from nothing", members=160, longer=1 if quick else 5)


def measured(quick: bool = False) -> Iterator[Row]:
    """Every heat: all set-ups are made ready, then take turns."""
    seconds, repetitions = (0.3, 3) if quick else (1.0, 5)
    for heat in heats(quick):
        with ExitStack() as ending:
            teams = []
            for setup in setups(heat):
                teams.append(Team(heat, setup, seconds))
                ending.callback(teams[-1].close)
            for _ in range(repetitions):
                for team in teams:
                    team.go()
            yield from (team.row() for team in teams)


def main() -> None:
    """Print a line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    for row in measured(parser.parse_args().quick):
        print(row, flush=True)


if __name__ == "__main__":
    main()
