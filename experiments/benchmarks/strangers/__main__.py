"""Public faults and their corrected twins: what is said of them, and whether it is right.

    python experiments/benchmarks/strangers

trains every case and twin, checks the declared truth in plain torch over 3 seeds, asks every tool that is installed, and
writes docs/evidence/strangers.md. `--only WORD` runs the cases whose name has the word and prints their lines;
`--results FOLDER` continues what an earlier run left there.
"""

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from answers import TOOLS, Answer, ask_harness
from stranger import SEEDS, Symptom, inputs_and_targets, symptom, trained
from stranger_page import page
from stranger_scores import Judged
from stranger_table import STRANGERS, by_name
from torch import nn

PAGE = Path(__file__).parents[3] / "docs" / "evidence" / "strangers.md"


def check_truth(name: str, sick: bool) -> tuple[Symptom, list[str], nn.Module]:
    """Return the symptom of seed 0 in plain torch, where the table's declarations fail over the seeds, and the model."""
    stranger = by_name(name)
    case = stranger.sick() if sick else stranger.twin()
    rows = inputs_and_targets(case.data())[0]
    symptoms, models, wrong = [], [], []
    for seed in SEEDS:
        model = trained(case, seed)
        models.append(model)
        measured = symptom(case, model)
        symptoms.append(measured)
        if stranger.fact is not None and stranger.fact(case, model, rows) != sick:
            wrong.append(f"seed {seed}: the fact is {'false of the case' if sick else 'true of the twin'}")
        if sick and stranger.lost not in ("any", measured.share):
            wrong.append(f"seed {seed}: lost units are {measured.share}, declared {stranger.lost}")
        if sick and stranger.output not in ("any", measured.output):
            wrong.append(f"seed {seed}: the output is {measured.output}, declared {stranger.output}")
    return symptoms[0], wrong, models[0]


def run(name: str, sick: bool, tools: bool, folder: Path) -> dict[str, Any]:
    """Return the truth and the answers of all tools for one case or twin; a result in the folder is not made again."""
    kept = folder / f"{'sick' if sick else 'twin'} {name}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    torch.set_num_threads(1)
    stranger = by_name(name)
    truth, wrong, model = check_truth(name, sick)
    case = stranger.sick() if sick else stranger.twin()
    answers = {"harness": ask_harness(case, SEEDS[0], model)}
    for tool in TOOLS[1:] if tools else ():
        if tool.version:
            try:
                answers[tool.name] = tool.ask(case, SEEDS[0])
            except Exception as error:
                answers[tool.name] = Answer(None, words=f"failed: {type(error).__name__}: {error}"[:80])
    result = {
        "truth": truth.to_dict(),
        "undeclared": wrong,
        "answers": {tool: answer.to_dict() for tool, answer in answers.items()},
    }
    kept.write_text(json.dumps(result, indent=1))
    return result


def judged(name: str, sick: bool, result: dict[str, Any], tool: str = "harness") -> Judged:
    """Return one case or twin with its truth and a tool's answer."""
    truth = Symptom.from_dict(result["truth"])
    return Judged(by_name(name), sick, truth, Answer.from_dict(result["answers"][tool]), result["undeclared"])


def main() -> None:
    """Run the table and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-tools", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, help="folder of results, in which an earlier run is continued")
    chosen = parser.parse_args()
    folder = chosen.results or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    names = [stranger.name for stranger in STRANGERS if chosen.only in stranger.name]
    results: list[Judged] = []
    others: dict[str, list[Judged]] = {}
    with ProcessPoolExecutor(chosen.workers) as pool:
        jobs = [
            (name, sick, pool.submit(run, name, sick, not chosen.no_tools, folder))
            for name in names
            for sick in (True, False)
        ]
        for name, sick, job in jobs:
            result = job.result()
            results.append(judged(name, sick, result))
            print(line(results[-1]), flush=True)
            for tool in result["answers"]:
                if tool != "harness":
                    others.setdefault(tool, []).append(judged(name, sick, result, tool))
    text, scores = page(results, others)
    print(json.dumps(scores, indent=1))
    if not chosen.only:
        chosen.page.write_text(text)


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
