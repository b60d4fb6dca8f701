"""Public faults and their corrected twins: what is said of them, and whether it is right.

    python experiments/benchmarks/strangers

trains every case and twin, checks the declared truth in plain torch over 3 seeds, asks every tool that is installed, and
writes docs/evidence/strangers.md. `--only WORD` runs the cases whose name has the word and prints their lines.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from answers import TOOLS, Answer, ask_harness
from page import page
from parts import SEEDS, Symptom, inputs_and_targets, symptom, trained
from scores import Judged
from table import STRANGERS, by_name

PAGE = Path(__file__).parents[3] / "docs" / "evidence" / "strangers.md"


def check_truth(name: str, sick: bool) -> tuple[Symptom, list[str]]:
    """Return the symptom of seed 0 in plain torch, and where the table's declarations fail over the seeds."""
    stranger = by_name(name)
    case = stranger.sick() if sick else stranger.twin()
    rows = inputs_and_targets(case.data())[0]
    symptoms, wrong = [], []
    for seed in SEEDS:
        model = trained(case, seed)
        measured = symptom(case, model)
        symptoms.append(measured)
        if stranger.fact is not None and stranger.fact(case, model, rows) != sick:
            wrong.append(f"seed {seed}: the fact is {'false of the case' if sick else 'true of the twin'}")
        if sick and stranger.lost not in ("any", measured.share):
            wrong.append(f"seed {seed}: lost units are {measured.share}, declared {stranger.lost}")
        if sick and stranger.output not in ("any", measured.output):
            wrong.append(f"seed {seed}: the output is {measured.output}, declared {stranger.output}")
    return symptoms[0], wrong


def judged(name: str, sick: bool, tools: bool) -> tuple[Judged, dict[str, Answer]]:
    """Return the truth and the answers of all tools for one case or twin."""
    torch.set_num_threads(1)
    stranger = by_name(name)
    truth, wrong = check_truth(name, sick)
    case = stranger.sick() if sick else stranger.twin()
    others: dict[str, Answer] = {}
    for tool in TOOLS[1:] if tools else ():
        if tool.version:
            try:
                others[tool.name] = tool.ask(case, SEEDS[0])
            except Exception as error:
                others[tool.name] = Answer(None, words=f"failed: {type(error).__name__}: {error}"[:80])
    return Judged(stranger, sick, truth, ask_harness(case, SEEDS[0]), wrong), others


def run(name: str, sick: bool, tools: bool) -> dict[str, object]:
    """Return what `judged` gives as plain values, which travel between processes."""
    result, others = judged(name, sick, tools)
    return {
        "truth": result.truth,
        "answer": result.answer,
        "undeclared": result.undeclared,
        "others": others,
    }


def main() -> None:
    """Run the table and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-tools", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--scores", type=Path, help="write the scores as JSON too")
    chosen = parser.parse_args()
    started = time.monotonic()
    names = [stranger.name for stranger in STRANGERS if chosen.only in stranger.name]
    results: list[Judged] = []
    others: dict[str, list[Judged]] = {}
    with ProcessPoolExecutor(chosen.workers) as pool:
        jobs = [
            (name, sick, pool.submit(run, name, sick, not chosen.no_tools)) for name in names for sick in (True, False)
        ]
        for name, sick, job in jobs:
            values = job.result()
            stranger = by_name(name)
            results.append(Judged(stranger, sick, values["truth"], values["answer"], values["undeclared"]))  # type: ignore[arg-type]
            print(line(results[-1]), flush=True)
            for tool, answer in values["others"].items():  # type: ignore[attr-defined]
                others.setdefault(tool, []).append(Judged(stranger, sick, values["truth"], answer))  # type: ignore[arg-type]
    text, scores = page(results, others, time.monotonic() - started)
    print(json.dumps(scores, indent=1))
    if not chosen.only:
        chosen.page.write_text(text)
    if chosen.scores:
        chosen.scores.write_text(json.dumps(scores, indent=1))


def line(result: Judged) -> str:
    """Return one case in a line."""
    said = result.answer
    marks = [
        "symptom" if result.symptom_right else "SYMPTOM",
        *([] if not result.nameable else ["cause" if result.cause_right else "CAUSE"]),
        *(f"FALSE {name}" for name in result.false_faults),
        *(f"TRUTH {text}" for text in result.undeclared),
    ]
    kind = "sick" if result.sick else "twin"
    return f"{result.stranger.name} ({kind}): {', '.join(marks)} | {said.words} | {said.causes} {said.maybe}"


if __name__ == "__main__":
    main()
