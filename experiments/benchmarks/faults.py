"""Faults injected and survived: damaged states, misbehaving cases, surroundings, data files, shards.

    python experiments/benchmarks/faults.py --kinds damaged files          # minutes
    python experiments/benchmarks/faults.py                                # everything but shards, about an hour on 2 cores
    nice python experiments/benchmarks/faults.py --kinds shards --rounds 30           # 16 shards that start together, forked
    nice python experiments/benchmarks/faults.py --kinds shards --rounds 30 --anew    # each in a new interpreter

A fault is survived if the command ends by itself with an exit code that is right, prints one JSON document or one
sentence, and no traceback. Prints a line for each fault that is not survived, and one for each kind; exit code 1 if there
is any.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[2].resolve()
sys.path += [str(ROOT), str(ROOT / "tests" / "faults")]
from damages import MANIFESTS, STACKS, stack_file  # noqa: E402
from data_files import DATA_FILES  # noqa: E402
from misbehaviors import FILE, MISBEHAVIORS, written  # noqa: E402
from surroundings import SURROUNDINGS, Surrounding  # noqa: E402

LONGEST = 600.0  # seconds of a command: a guard against hangs
SHARDS = 16
CODE = "import sys; sys.path.pop(0); sys.argv[0] = 'harness'; from harness.cli import main; main()"
LIBRARIES = (
    "torch",
    "pandas",
    "mlflow",
    "seaborn",
    "scipy.stats",
    "sklearn",
    "harness.experiment.driver",
    "harness.cli.run",
)
Outcome = tuple[str, list[str]]  # name of a fault, what is wrong


def main() -> int:
    """Inject the faults of the chosen kinds, and count."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=[kind for kind in KINDS if kind != "shards"])
    options.add_argument("--only", default="", help="only faults whose name contains this text")
    options.add_argument("--rounds", type=int, default=30, help="of shards")
    options.add_argument(
        "--anew", action="store_true", help="shards in new interpreters, which takes ten times as long"
    )
    chosen = options.parse_args()
    failures = 0
    preload()
    for kind in chosen.kinds:
        started, problems = time.monotonic(), [problem for _, problem in KINDS[kind](chosen)]
        tracebacks, hangs = (sum(word in wrong for wrong in problems) for word in ("traceback", "hangs"))
        survived = sum(not wrong for wrong in problems)
        failures += len(problems) - survived
        counts = f"{len(problems)} injected, {survived} survived, {tracebacks} tracebacks, {hangs} hangs"
        print(f"{kind}: {counts}, {time.monotonic() - started:.0f} s", flush=True)
    return int(failures > 0)


def preload() -> None:
    """Load the libraries that forks of this process need."""
    for module in LIBRARIES:
        import_module(module)


def reported(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Print the faults that are not survived."""
    for name, problems in outcomes:
        if problems:
            print(f"  {name}: {'; '.join(problems)}", flush=True)
        print(f"{name}: {'wrong' if problems else 'survived'}", file=sys.stderr, flush=True)
        yield name, problems


End = tuple[int | None, str, str]  # exit code, None if it hangs; the two streams


def forked(folder: Path, *words: str) -> End:
    """Run `harness` in a fork of this process, which has loaded the libraries, and return its end."""
    return begun(folder, *words)()


def begun(folder: Path, *words: str) -> Callable[[], End]:
    """Start `harness` in a fork of this process; call the result to await its end."""
    streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
    process = os.fork()
    if process == 0:
        os.setsid()
        os.chdir(folder)
        _end_with(words, *(stream.fileno() for stream in streams))

    def end() -> End:
        code = _waited(process)
        texts = []
        for stream in streams:
            with stream:
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        return code, texts[0], texts[1]

    return end


def _end_with(words: Sequence[str], out: int, error: int) -> NoReturn:
    """Run a command in this process, and end it with the command's exit code."""
    code = 1
    try:
        for stream, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (error, 2)):
            os.dup2(stream, descriptor)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        sys.argv = ["harness", *words]
        from harness.cli import main as command

        command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _waited(process: int) -> int | None:
    """Return the exit code of a process; None if it was killed because it hangs."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def run(folder: Path, *options: str) -> list[str]:
    """Run `harness run disturbed.yaml --json` in a fork, and return what is wrong with its end."""
    code, out, error = forked(folder, "run", "disturbed.yaml", "--json", *options)
    return ["hangs"] if code is None else ended(code, out, error)


def started_anew(folder: Path, surrounding: Surrounding) -> list[str]:
    """Run `harness run disturbed.yaml --json` in a new process, and return what is wrong with its end."""
    variables: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT), **surrounding.variables}
    words = [sys.executable, "-c", CODE, "run", "disturbed.yaml", "--json", "--workers", "0"]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    opened = {name: _stream(stream) for name, stream in surrounding.streams.items()}
    process = subprocess.Popen(
        words,
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        preexec_fn=surrounding.limit,
        start_new_session=True,
        **{**streams, **opened},
    )
    try:
        out, error = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return ["hangs"]
    return ended(process.returncode, out.decode(errors="replace"), (error or b"").decode(errors="replace"))


def _stream(stream: Any) -> "int | IO[bytes]":
    return Path(stream).open("wb") if isinstance(stream, str) else int(stream)


def ended(code: int, out: str, error: str) -> list[str]:
    """Return what is wrong with the end of a command, without its exit code, which is the last entry."""
    problems = ["traceback"] if "Traceback (most recent call last)" in out + error else []
    if code in (0, 3):
        try:
            json.loads(out)
        except ValueError:
            problems.append(f"not one JSON document: {out[:80]!r}")
    elif out:
        problems.append(f"output beside the error: {out[:80]!r}")
    return [*problems, f"exit code {code}"]


def expected(problems: list[str], exit_codes: tuple[int, ...]) -> list[str]:
    """Return the problems without an exit code that is right."""
    return [problem for problem in problems if problem not in [f"exit code {code}" for code in exit_codes]]


def misbehaving(chosen: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcome of each misbehaving case."""
    for name, misbehavior in MISBEHAVIORS.items():
        if chosen.only in name:
            with tempfile.TemporaryDirectory() as temporary:
                folder = project(Path(temporary), written(misbehavior))
                options = misbehavior.options if "--workers" in misbehavior.options else ("--workers", "1")
                yield name, expected(run(folder, *misbehavior.options, *options), misbehavior.exit_codes)


def surrounded(chosen: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcome of a run in each surrounding."""
    for name, surrounding in SURROUNDINGS.items():
        if chosen.only in name:
            with tempfile.TemporaryDirectory() as temporary:
                folder = project(Path(temporary) / surrounding.name, written(MISBEHAVIORS["nothing"]))
                surrounding.prepare(folder)
                yield name, expected(started_anew(folder, surrounding), surrounding.exit_codes)


def damaged(chosen: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcome of the next run for each damaged state of a finished experiment."""
    with tempfile.TemporaryDirectory() as temporary:
        whole = project(Path(temporary) / "whole", written(MISBEHAVIORS["nothing"]))
        assert expected(run(whole, "--workers", "0"), (0,)) == []
        tables = {"stack": STACKS, "manifest": MANIFESTS}
        for kind, name in [(kind, name) for kind, table in tables.items() for name in table]:
            if chosen.only not in name:
                continue
            folder = Path(temporary) / "copy"
            shutil.copytree(whole, folder)
            results = folder / "mlruns" / "results" / "disturbed"
            tables[kind][name](stack_file(results) if kind == "stack" else results / "manifest.json")
            yield f"{kind}: {name}", expected(run(folder, "--workers", "0"), (0,))
            shutil.rmtree(folder)


def files(chosen: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcome of `harness diagnose` for each data file, in a process of its own."""
    for name, write in DATA_FILES.items():
        if chosen.only in name:
            with tempfile.TemporaryDirectory() as temporary:
                write(Path(temporary) / name)
                code, _, error = forked(Path(temporary), "diagnose", name, "--json")
                wrong = "hangs" if code is None else "traceback" if "Traceback" in error else f"exit code {code}"
                yield name, expected([wrong], (0, 1, 2))


def shards(chosen: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcome of each shard, in rounds of 16 that start together in a fresh folder."""
    for number in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = project(Path(temporary), written(MISBEHAVIORS["nothing"]))
            start = started if chosen.anew else begun
            words = ("run", "disturbed.yaml", "--json", "--workers", "0", "--shard")
            together = [start(folder, *words, f"{part}/{SHARDS}") for part in range(1, SHARDS + 1)]
            documents = []
            for part, end in enumerate(together, 1):
                code, out, error = end()
                problems = ["hangs"] if code is None else expected(ended(code, out, error), (0,))
                documents += [json.loads(out)] if not problems else []
                yield f"round {number}, shard {part}", problems
            reports = [document for document in documents if document["report"] is not None]
            whole = bool(reports) and all(report["done"] == report["logged"] == 4 for report in reports)
            yield f"round {number}, the report", [] if whole else [f"{len(reports)} reports"]


def started(folder: Path, *words: str) -> Callable[[], End]:
    """Start `harness` in a new interpreter; call the result to await its end."""
    command = [sys.executable, "-c", CODE, *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end() -> End:
        try:
            out, error = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            out, error = process.communicate()
            return None, out.decode(errors="replace"), error.decode(errors="replace")
        return process.returncode, out.decode(errors="replace"), error.decode(errors="replace")

    return end


def project(folder: Path, case: str) -> Path:
    """Write the experiment and its case."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.py").write_text(case)
    (folder / "disturbed.yaml").write_text(FILE)
    return folder


KINDS = {
    "damaged": lambda chosen: reported(damaged(chosen)),
    "cases": lambda chosen: reported(misbehaving(chosen)),
    "surroundings": lambda chosen: reported(surrounded(chosen)),
    "files": lambda chosen: reported(files(chosen)),
    "shards": lambda chosen: reported(shards(chosen)),
}

if __name__ == "__main__":
    sys.exit(main())
