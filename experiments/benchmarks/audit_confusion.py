"""The audit's rules on random penalties whose truth is known by construction: one confusion matrix per rule.

    python experiments/benchmarks/audit_confusion.py

draws a thousand penalties (site x statistic x axis x clamp x weight x detach, on networks with four activations, with
and without a normalisation) and writes docs/evidence/audit-confusion.md. `--draws 50` makes it shorter.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Case
from harness.auditing import audit

PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "audit-confusion.md"
RHO = 0.05
CHOICES: dict[str, tuple[str, ...]] = {
    "activation": ("relu", "relu", "sigmoid", "leaky_relu", "none"),
    "norm": ("off", "off", "off", "on"),
    "site": ("code", "code", "code", "preactivation", "layer_before", "layer_after"),
    "statistic": ("kl_sigmoid", "kl", "square", "l1", "l2", "count", "sign"),
    "axis": ("batch", "units"),
    "clamp": ("no", "no", "mean", "values"),
    "weight": ("mean", "mean", "sum"),
    "detach": ("no", "no", "no", "no", "item", "detach"),
    "kind": (
        *("plain",) * 8,
        *("in_place", "selection", "straight_through", "posterior", "schedule", "floor", "head", "probe"),
    ),
}
ACTIVATION_OF_KIND = {
    "in_place": ("relu",),
    "selection": ("relu",),
    "straight_through": ("sigmoid",),
    "posterior": ("none",),
}
FLOOR = 1e3  # above every value of a penalty here
RULES = (
    *("no_gradient", "zero_gradient", "misses_bottleneck", "wrong_layer", "wrong_axis", "not_the_code_in_use"),
    *("unreachable_target", "pushes_active_units_down", "collapse_optimum", "unbounded", "escape", "outside_domain"),
    *("depends_on_batch_size", "index_addressing", "edits_in_place"),
)


@dataclass(frozen=True)
class Penalty:
    """One random penalty and the network it is put on."""

    activation: str
    norm: str
    site: str
    statistic: str
    axis: str
    clamp: str
    weight: str
    detach: str
    kind: str = "plain"

    @property
    def has_set_point(self) -> bool:
        """Whether a constant other than zero is best."""
        return self.statistic in ("kl_sigmoid", "kl", "square")

    @property
    def at_bottleneck(self) -> bool:
        """Whether it reads the bottleneck."""
        return self.site in ("code", "preactivation")

    def sensible(self) -> bool:
        """Whether its truth can be said: combinations that are neither right nor wrong are not drawn."""
        if self.activation == "none" and self.norm == "off" and self.site == "preactivation":
            return False  # the code itself
        if self.statistic == "kl" and (self.site != "code" or self.activation not in ("relu", "sigmoid")):
            return False  # of no probabilities whatever
        if self.clamp != "no" and (self.statistic in ("kl_sigmoid", "count", "sign") or self.site != "code"):
            return False
        if self.clamp == "mean" and self.statistic not in ("kl", "square"):
            return False
        if self.kind == "plain":
            return True
        activations = ACTIVATION_OF_KIND.get(self.kind, ("relu", "sigmoid", "none"))
        simple = (self.site, self.norm, self.clamp, self.detach) == ("code", "off", "no", "no")
        return simple and self.activation in activations and self.statistic not in ("kl", "count", "sign")


class Network(nn.Module):
    """8-10-4-10-8 with a chosen code."""

    def __init__(self, activation: str, norm: bool, kind: str = "plain") -> None:
        super().__init__()
        self.kind, self.head = kind, nn.Linear(4, 4)
        self.enc1, self.enc2 = nn.Linear(8, 10), nn.Linear(10, 4)
        self.dec1, self.dec2 = nn.Linear(4, 10), nn.Linear(10, 8)
        self.norm = nn.BatchNorm1d(4, affine=False) if norm else nn.Identity()
        self.activation: Callable[[Tensor], Tensor] = getattr(F, activation) if activation != "none" else nn.Identity()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """What a penalty may read, and the reconstruction."""
        before = torch.relu(self.enc1(x))
        preactivation = self.norm(self.enc2(before))
        code = self._kind(self.activation(preactivation) if self.kind != "in_place" else F.relu_(preactivation))
        after = torch.relu(self.dec1(self._drawn(code)))
        seen = {"layer_before": before, "preactivation": preactivation, "code": code, "layer_after": after}
        return {**seen, "reconstruction": self.dec2(after)}

    def _kind(self, code: Tensor) -> Tensor:
        """What becomes of the activation before the decoder and the penalty read it."""
        if self.kind == "selection":
            return torch.zeros_like(code).scatter(1, code.topk(2, dim=1).indices, code.topk(2, dim=1).values)
        return code + (code.round() - code).detach() if self.kind == "straight_through" else code

    def _drawn(self, code: Tensor) -> Tensor:
        """A sample around the code, for the kind with a posterior."""
        return code + 0.1 * torch.randn_like(code) if self.kind == "posterior" and self.training else code


def data() -> Tensor:
    """200 rows of 8 features around two factors."""
    draw = torch.Generator().manual_seed(3)
    return torch.randn(200, 2, generator=draw) @ torch.randn(2, 8, generator=draw) + 0.3 * torch.randn(
        200, 8, generator=draw
    )


def case_of(penalty: Penalty) -> Case:
    """The case whose only penalty is this one."""

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor | float]:
        seen = model(batch)
        read = seen[penalty.site]
        if penalty.kind in ("head", "probe"):
            read = model.head(read.detach() if penalty.kind == "probe" else read)
        value = value_of(penalty, read)
        return {
            "reconstruction": F.mse_loss(seen["reconstruction"], batch),
            "penalty": torch.as_tensor(value).clamp_min(FLOOR) if penalty.kind == "floor" else value,
        }

    def scheduled(model: nn.Module, batch: Tensor, step: int) -> dict[str, Tensor | float]:
        terms = losses(model, batch)
        return {**terms, "penalty": min(1.0, step / 20) * terms["penalty"]}

    def model() -> Network:
        return Network(penalty.activation, penalty.norm == "on", penalty.kind)

    if penalty.kind == "schedule":
        return Case(
            model=model, data=data, losses=scheduled, bottleneck="enc2", reconstruction="out:4", numbers={"beta": 0.01}
        )

    return Case(
        model=model, data=data, losses=losses, bottleneck="enc2", reconstruction="out:4", numbers={"beta": 0.01}
    )


def value_of(penalty: Penalty, values: Tensor) -> Tensor | float:
    """The penalty of `[sample, unit]` values."""
    rows, axis = len(values), 0 if penalty.axis == "batch" else 1
    values = values.detach() if penalty.detach == "detach" else values
    values = values.clamp(0, 1) if penalty.clamp == "values" else values
    found = STATISTICS[penalty.statistic](values, axis, penalty.clamp == "mean")
    # one number per unit (axis batch) or per row (axis units): the mean over rows, or a sum that grows with them
    found = found.sum() if penalty.axis == "batch" else found.mean()
    found = found * rows if penalty.weight == "sum" else found
    return found.item() if penalty.detach == "item" else found


def _kl(mean: Tensor) -> Tensor:
    return RHO * torch.log(RHO / mean) + (1 - RHO) * torch.log((1 - RHO) / (1 - mean))


def _mean(values: Tensor, axis: int, clamp: bool) -> Tensor:
    return values.mean(axis).clamp(1e-3, 1 - 1e-3) if clamp else values.mean(axis)


STATISTICS: dict[str, Callable[[Tensor, int, bool], Tensor]] = {
    "kl_sigmoid": lambda values, axis, clamp: _kl(torch.sigmoid(values).mean(axis)),
    "kl": lambda values, axis, clamp: _kl(_mean(values, axis, clamp)),
    "square": lambda values, axis, clamp: (_mean(values, axis, clamp) - RHO) ** 2,
    "l1": lambda values, axis, clamp: values.abs().mean(axis),
    "l2": lambda values, axis, clamp: values.pow(2).mean(axis),
    "count": lambda values, axis, clamp: (values > 0.5).to(values.dtype).mean(axis),
    "sign": lambda values, axis, clamp: torch.sign(values - 0.1).mean(axis),
}


def truth(p: Penalty) -> dict[str, bool | None]:
    """Which rules are true of it; None where the construction does not tell."""
    dead_end = p.detach != "no" or p.statistic == "count"
    inert = dead_end or p.statistic == "sign"
    reads = p.at_bottleneck and not inert
    # a ReLU hides how far below zero a value lies, a normalisation hides shift and scale of what comes before it
    hidden = p.site == "preactivation" and p.activation != "none"
    again = p.statistic == "kl_sigmoid" and p.activation == "sigmoid"  # the loss computes the very code once more
    of_the_code = again or (p.activation in ("relu",) and p.statistic in ("count", "sign")) or p.clamp == "values"
    plain = p.norm == "off"
    told: dict[str, bool | None] = {
        "no_gradient": dead_end,
        "zero_gradient": p.statistic == "sign" and not dead_end,
        "wrong_layer": not p.at_bottleneck,
        "misses_bottleneck": p.site == "layer_before" or (hidden and not of_the_code and p.activation == "relu"),
        "not_the_code_in_use": hidden and not of_the_code,
        "wrong_axis": p.axis == "units" and p.has_set_point,
        "depends_on_batch_size": p.weight == "sum",
        "index_addressing": False,
        "edits_in_place": False,
    }
    if hidden and p.activation in ("sigmoid", "leaky_relu"):
        told["misses_bottleneck"] = None  # what was undone can be done again: a matter of words
    told["unreachable_target"] = _unreachable(p) if reads else False
    told["outside_domain"] = _outside(p)
    told["escape"] = (
        None
        if p.statistic == "kl_sigmoid" and p.axis == "units"
        else p.site == "code" and not inert and p.clamp != "no" and p.activation != "sigmoid"
    )
    told["pushes_active_units_down"] = _pushes(p) if reads and plain else (None if reads else False)
    told["collapse_optimum"] = _collapses(p) if reads and plain else (None if reads else False)
    told["unbounded"] = False
    if _is_constant(p) and not inert:
        unsaid = ("misses_bottleneck", "not_the_code_in_use", "escape", "unreachable_target", "depends_on_batch_size")
        told |= {"zero_gradient": True, **dict.fromkeys(unsaid)}
    return _of_kind(p, told)


def _is_constant(p: Penalty) -> bool:
    """Whether it is a function of means over the batch behind a normalization, which are 0 whatever the weights."""
    linear = p.activation == "none" or p.site == "preactivation"
    means = (p.statistic, p.axis, p.norm) == ("square", "batch", "on") and p.clamp != "values"
    return linear and means and p.at_bottleneck


def _of_kind(p: Penalty, told: dict[str, bool | None]) -> dict[str, bool | None]:
    """The truth where the code is read through something, drawn, or where the term is scheduled or at a floor."""
    if p.kind in ("selection", "schedule"):
        # which values are selected, and the weight at the probe, decide whether float32 leaves the domain
        return {**told, "outside_domain": None}
    if p.kind in ("plain", "in_place", "posterior"):
        return told
    sure = {"no_gradient": False, "edits_in_place": False, "index_addressing": False, "wrong_layer": False}
    if p.kind != "floor":
        sure |= {"zero_gradient": False, "misses_bottleneck": False, "depends_on_batch_size": p.weight == "sum"}
    # the rest is about the head's output or a rounded code, or silent at a floor: the construction does not tell
    return {rule: sure.get(rule) for rule in told}


def _unreachable(p: Penalty) -> bool | None:
    if p.statistic == "kl_sigmoid":
        if p.norm == "on":
            return True
        return p.site == "code" and p.activation in ("relu", "sigmoid")
    if p.statistic in ("kl", "square") and p.norm == "on":
        return True if p.activation == "sigmoid" and p.site == "code" else None
    return False


def _outside(p: Penalty) -> bool | None:
    if p.statistic == "kl_sigmoid" and p.detach == "no" and p.clamp != "values":
        # a float32 sigmoid is 1 from about 17 on: a bounded code never comes there, nor one behind a normalisation
        bounded = p.at_bottleneck and p.activation == "sigmoid"
        return not bounded and not (p.norm == "on" and p.at_bottleneck)
    if p.statistic != "kl" or p.activation != "relu" or p.clamp == "mean":
        return False
    return True if p.axis == "batch" else None


def _pushes(p: Penalty) -> bool | None:
    if p.activation != "relu" or p.site != "code":
        return False
    return p.statistic in ("kl_sigmoid", "l1", "l2")


def _collapses(p: Penalty) -> bool | None:
    if p.activation == "relu" and p.site == "code" and p.clamp == "no":
        return p.statistic in ("kl_sigmoid", "l1", "l2")
    return False if p.statistic in ("kl", "square") else None


def draw(count: int, seed: int = 0) -> list[Penalty]:
    """Random penalties, the same for the same seed."""
    dice, found = random.Random(seed), []
    while len(found) < count:
        penalty = Penalty(**{name: dice.choice(levels) for name, levels in CHOICES.items()})
        if penalty.sensible():
            found.append(penalty)
    return found


def judged(penalty: Penalty) -> tuple[Penalty, set[str], set[str]]:
    """The penalty, the rules that fired on it, and those left undecided."""
    torch.set_num_threads(1)
    found = audit(case_of(penalty), during_training=False, seeds=1)
    fired = {each.rule for each in found.findings if each.term == "penalty"}
    return penalty, fired, {each.rule for each in found.undecided if each.term == "penalty"}


def tally(outcomes: list[tuple[Penalty, set[str], set[str]]]) -> tuple[dict[str, Counter[str]], list[str]]:
    """Counts by rule, and one line for each disagreement."""
    counts: dict[str, Counter[str]] = {rule: Counter() for rule in RULES}
    wrong: list[str] = []
    for penalty, fired, undecided in outcomes:
        for rule, true in truth(penalty).items():
            said = rule in fired
            kind = _kind(true, said, rule in undecided or "all rules" in undecided)
            counts[rule][kind] += 1
            if kind in ("missed", "false alarm"):
                wrong.append(f"{rule}: {kind}: {', '.join(f'{k} {v}' for k, v in asdict(penalty).items())}")
    return counts, wrong


def _kind(true: bool | None, said: bool, undecided: bool) -> str:
    if true is None:
        return "not told"
    if undecided and not said:
        return "undecided"
    return {(True, True): "found", (True, False): "missed", (False, True): "false alarm", (False, False): "silent"}[
        true, said
    ]


def page(counts: dict[str, Counter[str]], wrong: list[str], draws: int, distinct: int, seconds: float) -> str:
    """The page of the documentation."""
    kinds = ("found", "missed", "false alarm", "silent", "undecided", "not told")
    lines = [
        "# The audit on random penalties of known truth",
        "",
        f"`python experiments/benchmarks/audit_confusion.py --draws {draws}` wrote this page in {seconds / 60:.0f} minutes:"
        f" {draws} penalties ({distinct} different ones), each probed at one initialisation, without training.",
        "",
        "A penalty is drawn as site x statistic x axis x clamp x weight x detach on a network with one of four activations,"
        " with or without `BatchNorm1d(affine=False)`; half of them are of a further kind: activations in place, a selection"
        " of units, a straight-through step, a sample around the code, a schedule, a floor, a head of its own, a detached"
        " probe. What is true of it follows from the draw. *not told*: the draw does"
        " not say (a KL of a ReLU mean may or may not leave its domain on the data); such combinations count for nothing.",
        "",
        f"| rule | {' | '.join(kinds)} |",
        f"|---|{'---:|' * len(kinds)}",
        *(f"| {rule} | {' | '.join(str(counts[rule][kind]) for kind in kinds)} |" for rule in RULES),
        "",
        "`unbounded`, `index_addressing` and `edits_in_place` are true of none of these: they are here for their false alarms;"
        " the tests plant them.",
        "",
    ]
    if wrong:
        shown = Counter(wrong).most_common(20)
        lines += [
            "Disagreements, the most frequent first:",
            "",
            *(f"- {each} ({count} x)" for each, count in shown),
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Draw, judge, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60, help="draws that are not judged by then are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args()
    started = time.monotonic()
    penalties = draw(chosen.draws, chosen.seed)
    distinct = list(dict.fromkeys(penalties))  # equal draws have equal audits
    known = {}
    with ProcessPoolExecutor(chosen.workers) as pool:
        waiting = [pool.submit(judged, each) for each in distinct]
        for done in waiting:
            outcome = done.result()
            known[outcome[0]] = outcome
            if time.monotonic() - started > 60 * chosen.minutes:
                break
        pool.shutdown(cancel_futures=True)
    penalties = [each for each in penalties if each in known]
    counts, wrong = tally([known[each] for each in penalties])
    chosen.page.write_text(page(counts, wrong, len(penalties), len(known), time.monotonic() - started))
    print("\n".join(f"{rule:28s} {dict(count)}" for rule, count in counts.items()))
    print("\n".join(f"{count:4d} x {each}" for each, count in Counter(wrong).most_common(30)))


if __name__ == "__main__":
    main()
