"""Page of the keys of an experiment file and of the levels of each factor, from the checks that read them."""

import re
from pathlib import Path

from harness.case import TRAIN_DEFAULTS
from harness.factors import FACTORS, TRAINED, Factor, range_of
from harness.grid.experiment import Experiment
from harness.grid.loader import DESIGNS, FACTORIAL_ONLY, KEYS, REQUIRED

MADE = "<!-- made by `python docs/generate` from the checks of experiment files -->\n"
FORMS = {
    "name": "text",
    "case": "text",
    "data": "text",
    "remedies": "list of partial cells",
    "factors": "mapping of a factor to a list of levels",
    "baseline": "mapping of a factor to one level",
    "interactions": "list of pairs of factors",
    "contrasts": "list of pairs of partial cells",
    "seeds": "a number N (seeds 0 to N-1), or a list of seeds",
    "train": "mapping of training numbers",
    "exclude": "list of partial cells",
    "include": "list of partial cells",
    "zip": "list of partial cells",
    "keep_weights": "`shown`, `all` or `none`",
    "splits": "a whole number from 1 to 1000",
}


def write_keys(docs: Path) -> None:
    """Write the page of the keys."""
    (docs / "reference" / "yaml.md").write_text(keys_text())


def keys_text() -> str:
    """Return the page in Markdown."""
    meanings = dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", Experiment.__doc__ or "", re.MULTILINE))
    lines = [
        MADE,
        "# Keys of an experiment file",
        "",
        INTRODUCTION,
        "",
        "| key | required | form | meaning |",
        "|---|---|---|---|",
    ]
    for key in KEYS:
        required = "yes" if key in REQUIRED else "one of the two" if key in DESIGNS else ""
        only = "; with `factors` only" if key in FACTORIAL_ONLY else ""
        form = FORMS.get(key, "text")
        meaning = " ".join(meanings[key].split()).rstrip(".")
        lines.append(f"| `{key}` | {required} | {form} | {meaning}{only} |")
    lines += [
        "",
        "## Factors",
        "",
        FACTORS_TEXT,
        "",
        "| factor | levels | without it | shares a stack |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {levels(factor)} | {unchanged(factor)} | {'yes' if factor.stacks else 'no'} |"
        for name, factor in FACTORS.items()
    ]
    lines += ["| any number of the case | a number | the case's own | yes |"]
    lines += ["", "## `train`", "", "| key | values | default |", "|---|---|---|"]
    for key, default in TRAIN_DEFAULTS.items():
        values = f"a number {range_of(TRAINED[key])}" if key in TRAINED else OTHER_TRAINING[key]
        lines.append(f"| `{key}` | {values} | {default} |")
    return "\n".join(lines) + "\n"


INTRODUCTION = """Any other key is refused with the nearest known one. The page [experiment files](experiments.md) has examples.
A *partial cell* names some factors with a level, or a list of levels."""
FACTORS_TEXT = """A level outside the range is refused. Members that differ only in factors that share a stack are trained as one
batched program."""
OTHER_TRAINING = {
    "device": "`auto`, `cpu`, `cuda`, `cuda:0`, `mps`",
    "snapshot_every": "whole epochs from 1",
    "warmup": "share of training from 0 to 1",
}


def levels(factor: Factor) -> str:
    """Return the levels of a factor."""
    if factor.choices:
        return ", ".join(f"`{choice}`" for choice in factor.choices)
    kind = "a whole number" if factor.integer else "a number"
    return f"{kind} {range_of(factor)}" + "".join(f", or `{word}`" for word in factor.words)


def unchanged(factor: Factor) -> str:
    """Return the level that leaves a case as it is."""
    return "the case's own" if factor.default is None else f"`{factor.default}`"
