"""Coverage-guided fuzzing of three doors: experiment files, arrays in files, and the arguments of `diagnose`.

    python experiments/benchmarks/fuzz.py --inputs 20000

An input that reaches a line of the harness (or of its YAML parser) that none reached before is kept and mutated
further. Nothing but `HarnessError`, on one line, may come out. Prints one JSON document; exit code 1 with a failure.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import HarnessError

ROOT = Path(__file__).parents[2].resolve()
TRACED = (str(ROOT / "harness"), "ruamel")
LONGEST = 4000  # bytes that an input may grow to
TOKENS = [b"\x00", b"\xff", b"\n", b"\t", b": ", b"- ", b"[", b"]", b"{", b"}", b",", b"'", b'"', b"#", b"&a", b"*a"]
TOKENS += [b"1e400", b"-1", b".nan", b".inf", b"0", b"null", b"true", b"on", b"!!", b"|", b">", b"%", b"---", b"1e39"]
TOKENS += [
    b"remedies",
    b"factors",
    b"seeds",
    b"exclude",
    b"include",
    b"zip",
    b"baseline",
    b"interactions",
    b"contrasts",
    b"train",
]
TOKENS += [b"epochs", b"rho", b"beta", b"data: digits", b"99999999999999999999", b"\xe2\x80\xae", b"\xef\xbb\xbf"]


def fuzz(name: str, inputs: int, seed: int, traced: bool = True) -> dict[str, Any]:
    """Send so many inputs through a door; what it reached, and what came out that must not."""
    begin, attempt = DOORS[name]
    chance, reached, failures = random.Random(seed), set[tuple[str, int]](), []
    corpus, tally, started = begin(), {"answered": 0, "refused": 0}, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(inputs):
            content = corpus[index] if index < len(corpus) else mutated(corpus, chance)
            lines, answer = watched(lambda content=content: attempt(content, Path(folder)), traced)
            tally[answer if answer in tally else "answered"] += answer in tally
            if answer not in tally:
                failures.append({"input": content.hex()[:2000], "error": answer})
            if not lines <= reached:
                reached |= lines
                corpus.append(content)
    seconds = round(time.monotonic() - started, 1)
    found = {"inputs": inputs, **tally, "kept": len(corpus), "lines": len(reached), "seconds": seconds}
    return {**found, "failures": failures}


def mutated(corpus: list[bytes], chance: random.Random) -> bytes:
    """One of the corpus, changed in one to eight places."""
    content = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, 8)):
        place, length = chance.randint(0, len(content)), chance.randint(1, 12)
        kind = chance.randrange(6)
        if kind == 0:
            content[place:place] = chance.choice(TOKENS)
        elif kind == 1:
            content[place : place + length] = b""
        elif kind == 2:
            content[place : place + 1] = chance.randbytes(1)
        elif kind == 3:
            content[place:place] = content[place : place + length]
        elif kind == 4:
            other = chance.choice(corpus)
            start = chance.randint(0, len(other))
            content[place : place + length] = other[start : start + length]
        else:
            content[place : place + length] = chance.choice(TOKENS)
    return bytes(content[:LONGEST])


def watched(attempt: Callable[[], Any], traced: bool) -> tuple[set[tuple[str, int]], str]:
    """The lines that were reached, and what came of it: answered, refused, or the error that must not be."""
    lines: set[tuple[str, int]] = set()

    def line(frame: Any, event: str, argument: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    def call(frame: Any, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        return line if name.startswith(TRACED[0]) or TRACED[1] in name else None

    before = sys.gettrace()
    if traced:
        sys.settrace(call)
    try:
        attempt()
        return lines, "answered"
    except HarnessError as error:
        return lines, "refused" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        return lines, f"{type(error).__name__}: {error} at {traceback.extract_tb(error.__traceback__)[-1]}"
    finally:
        if traced:
            sys.settrace(before)


def load_file(content: bytes, folder: Path) -> None:
    """An experiment file."""
    from harness.grid import load_experiment

    (folder / "e.yaml").write_bytes(content)
    load_experiment(folder / "e.yaml")


def read_file(content: bytes, folder: Path) -> None:
    """A file of activations; the first byte says of which kind."""
    from harness.data import read_array

    path = folder / f"a.{KINDS[content[0] % len(KINDS)] if content else 'npy'}"
    path.write_bytes(content[1:])
    read_array(path)


def judge(content: bytes, folder: Path) -> None:
    """The arguments of `diagnose`, one choice a byte."""
    bytes_left = iter(content)
    diagnose_anything(lambda choices: next(bytes_left, 0) % choices)


def diagnose_anything(choose: Callable[[int], int]) -> Any:
    """`diagnose` with arguments that somebody chooses, right or wrong, one out of so many at a time."""
    from harness.diagnosis import diagnose

    members, rows, units = choose(3), choose(14), choose(5)
    shape = (rows, units) if members == 0 else (members, rows, units)
    given = {name: of(choose, shape) for name, of in OPTIONS.items() if choose(4) == 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return diagnose(array(choose, shape), members=bool(members) != (choose(12) == 1), **given)


def array(choose: Callable[[int], int], shape: tuple[int, ...]) -> Any:
    """An array of that shape or, now and then, of another, with extreme values in it."""
    shape = (*shape[:-1], shape[-1] + 1) if choose(16) == 1 else shape
    kind = DTYPES[choose(len(DTYPES))]
    few = [VALUES[choose(len(VALUES))] for _ in range(1 + choose(5))]
    noise = np.random.default_rng(choose(256)).standard_normal(shape)
    at = np.random.default_rng(choose(256)).integers(0, len(few) + (2, 0)[choose(2)], shape)
    with np.errstate(all="ignore"):
        return np.where(at < len(few), np.asarray(few)[np.minimum(at, len(few) - 1)], noise).astype(kind)


def vector(choose: Callable[[int], int], length: int) -> Any:
    """One value a row: classes or numbers."""
    whole = np.random.default_rng(choose(256)).integers(0, 1 + choose(6), length)
    return whole if choose(2) else array(choose, (length,))


def text_seeds() -> list[bytes]:
    return [
        path.read_bytes() for path in sorted((ROOT / "experiments").glob("*.yaml")) if path.stat().st_size < LONGEST
    ]


def file_seeds() -> list[bytes]:
    import pandas
    import torch

    values, found = np.arange(12.0).reshape(4, 3) / 7, []
    frame = pandas.DataFrame(values, columns=list("abc"))
    writers: dict[str, Callable[[io.BytesIO], Any]] = {
        "npy": lambda to: np.save(to, values),
        "npz": lambda to: np.savez(to, values),
        "pt": lambda to: torch.save(torch.tensor(values), to),
        "csv": lambda to: frame.to_csv(to, index=False),
        "parquet": lambda to: frame.to_parquet(to),
    }
    for place, kind in enumerate(KINDS):
        stream = io.BytesIO()
        writers[kind](stream)
        found.append(bytes([place]) + stream.getvalue())
    return found


def choice_seeds() -> list[bytes]:
    return [random.Random(seed).randbytes(120) for seed in range(20)]


KINDS = ("npy", "npz", "pt", "csv", "parquet")
DTYPES = ("float64", "float32", "float16", "int64", "uint8", "bool", "complex64", "object", "U3", ">f4", "longdouble")
VALUES = (0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324, 1e-38, 3e38, 65504.0)
ACTIVATIONS = ("relu", "sigmoid", "tanh", "none", "elu", "softplus", "leaky_relu", "gelu", "silu", "rleu", "")
OPTIONS: dict[str, Callable[[Callable[[int], int], tuple[int, ...]], Any]] = {
    "activation": lambda choose, shape: ACTIVATIONS[choose(len(ACTIVATIONS))],
    "labels": lambda choose, shape: vector(choose, shape[-2]),
    "factors": lambda choose, shape: {"one": vector(choose, shape[-2]), 2: vector(choose, shape[-2])},
    "inputs": lambda choose, shape: array(choose, (shape[-2], 3)),
    "reconstruction": lambda choose, shape: array(choose, (*shape[:-1], 3)),
    "target": lambda choose, shape: (*VALUES, None, "x", [1])[choose(len(VALUES) + 3)],
    "repeat": lambda choose, shape: array(choose, shape),
    "dtype": lambda choose, shape: DTYPES[choose(len(DTYPES))],
    "scale": lambda choose, shape: array(choose, shape[:-2] + shape[-1:]),
    "ablation": lambda choose, shape: array(choose, shape[:-2] + shape[-1:]),
    "blocks": lambda choose, shape: vector(choose, shape[-2]),
    "training_inputs": lambda choose, shape: array(choose, (5, 3)),
    "normalised": lambda choose, shape: array(choose, shape),
}
DOORS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes, Path], None]]] = {
    "yaml": (text_seeds, load_file),
    "readers": (file_seeds, read_file),
    "diagnose": (choice_seeds, judge),
}


def main() -> None:
    """Each door in turn."""
    wanted = argparse.ArgumentParser(description=__doc__)
    wanted.add_argument("--inputs", type=int, default=20000, help="through each door")
    wanted.add_argument("--seed", type=int, default=0)
    wanted.add_argument("--door", choices=[*DOORS], action="append")
    chosen = wanted.parse_args()
    found = {name: fuzz(name, chosen.inputs, chosen.seed) for name in chosen.door or DOORS}
    print(json.dumps(found, indent=1))
    sys.exit(any(each["failures"] for each in found.values()))


if __name__ == "__main__":
    main()
