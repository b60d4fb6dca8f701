"""Remedies that the signs of a model suggest, and remedies that cannot help it, each with its reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.auditing.weight_keywords import has_gradient, weight_keyword
from harness.case import Case
from harness.data.rows import Split
from harness.diagnosis.severity import Severity
from harness.factors import Level
from harness.loss_terms import bind_losses
from harness.models import build_model
from harness.prescription.goal import has_failed, is_poor
from harness.remedies import same_as_default, why_not_applicable
from harness.remedies.layout import inspect_model
from harness.results.records import COLLAPSED, MemberRecord
from harness.training.schedules import sets_rates_itself

Cell = Mapping[str, Level]

RECTIFIERS = ("relu", "elu", "gelu", "silu", "softplus")  # and smooth forms of them
USUAL_RATES = (0.01, 0.001, 0.0001)
WEIGHT_STEPS = (0.1, 0.01, 0.001)  # of the present weight
WEIGHED_ROWS = 64  # on which it is measured which numbers weigh a penalty
MISPLACED = (  # faults of a penalty that a penalty of the code itself does not have
    *("no_gradient", "zero_gradient", "misses_bottleneck", "wrong_layer", "wrong_axis", "not_the_code_in_use"),
    *("collapse_optimum", "unbounded", "escape", "outside_domain"),
)
SILENT = ("dead", "never_fired", "constant_on", "constant_off", "constant_at_target", "rare")


@dataclass(frozen=True)
class Signs:
    """Observations that decide which remedies are tried.

    Args:
        rules: rules of the audit that fired.
        serious: those of them that are a fault or a risk.
        verdicts: layer verdict of each untreated member.
        unit_verdicts: verdicts of the units of all untreated members.
        activation: name of the activation of the bottleneck.
        has_penalty: True when the loss has a term beside its objective.
        target: the penalty's target activation, or None.
        weights: names and values of the numbers that weigh a penalty.
        advice: new values of the case's numbers that the audit recommends.
        output_fails: True when some untreated member reconstructs no better than the mean.
        has_posterior: True for a latent with a declared posterior.
        poor: True when the untreated members that do not fail reconstruct far worse than PCA.
        diverged: True when some untreated member diverged.
        died: True when some unit of an untreated member varied at first and not at the end.
        rate: the case's learning rate; None for a case that trains by its own function.
    """

    rules: frozenset[str] = frozenset()
    serious: frozenset[str] = frozenset()
    verdicts: tuple[str, ...] = ()
    unit_verdicts: frozenset[str] = frozenset()
    activation: str = "none"
    has_penalty: bool = False
    target: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    advice: Mapping[str, float] = field(default_factory=dict)
    output_fails: bool = False
    has_posterior: bool = False
    poor: bool = False
    diverged: bool = False
    died: bool = False
    rate: float | None = None

    @property
    def collapsed(self) -> bool:
        """True when some untreated member collapsed."""
        return any(verdict in COLLAPSED for verdict in self.verdicts)

    @property
    def silent_units(self) -> bool:
        """True when some untreated member collapsed, or has a unit that is constant or rarely fires."""
        return self.collapsed or bool(self.unit_verdicts & set(SILENT))


@dataclass(frozen=True)
class Candidate:
    """A change that is tried, or that is left out, with the reason."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Indication:
    """Changes that a sign suggests.

    Args:
        reason: the sign, as it is printed.
        applies: True for signs that suggest the changes.
        cells: the changes, made for the signs at hand.
    """

    reason: str
    applies: Callable[[Signs], bool]
    cells: Callable[[Signs], Sequence[Cell]]


def signs_of(case: Case, split: Split, audit: Any, records: Sequence[MemberRecord]) -> Signs:
    """Collect the signs of an audit and of untreated members; `audit` is None for a case that cannot be audited."""
    diagnoses = [record.diagnosis.plain() for record in records if record.status == "ok"]
    findings = () if audit is None else audit.findings
    advice = {name: value for finding in findings for name, value in finding.change.items()}
    return Signs(
        rules=frozenset(finding.rule for finding in findings),
        serious=frozenset(finding.rule for finding in findings if finding.severity is not Severity.NOTE),
        verdicts=tuple(record.verdict for record in records),
        unit_verdicts=frozenset(unit["verdict"] for diagnosis in diagnoses for unit in diagnosis.get("units", ())),
        activation=next((str(diagnosis.get("activation", "none")) for diagnosis in diagnoses), "none"),
        has_penalty=audit is not None and len(audit.terms) > 1,
        target=case.rho,
        weights={} if audit is None else penalty_weights(case, split, audit.terms),
        advice=advice,
        output_fails=any(record.output_fault for record in records),
        has_posterior=case.posterior is not None,
        poor=is_poor([record for record in records if not has_failed(record)]),
        diverged=any(record.status == "diverged" for record in records),
        died=any(bool(step) for record in records for step in record.died_at),
        rate=None if case.fit is not None else float(case.training()["learning_rate"]),
    )


def penalty_weights(case: Case, split: Split, terms: Sequence[str]) -> dict[str, float]:
    """Return the numbers that weigh a penalty, with their present values.

    It is the case's `penalty_weight` where `numbers` has it; else every number to which the gradient of a penalty is
    proportional; else the harness's own factor, 1, if it multiplies the penalties.
    """
    name = case.weight_name
    if name in case.numbers:
        return {name: float(case.numbers[name])}
    batch = split.train.inputs[: min(WEIGHED_ROWS, int(case.training()["batch_size"]))]
    bound = bind_losses(case, split.train.targets)
    model = build_model(case, 0, batch)
    penalties = [term for term in terms if term != case.objective and has_gradient(bound, model, batch, term)]
    keywords = [weight_keyword(bound, model, batch, term, WEIGHT_STEPS[0]) for term in penalties]
    measured = {keyword.keyword: keyword.now for keyword in keywords if keyword is not None}
    return measured or ({} if case.weighs_itself or not penalties else {name: 1.0})


def candidates(case: Case, split: Split, signs: Signs) -> tuple[list[Candidate], list[Candidate]]:
    """Return the changes to try, and those that are left out, each with its reason.

    Returns:
        Two lists: the candidates that apply to the model, in the order of the table, and the changes that do not.
    """
    layout = inspect_model(bind_losses(case, split.train.targets), split.train.inputs)
    tried: dict[tuple[tuple[str, Level], ...], Candidate] = {}
    excluded: list[Candidate] = []
    for indication in INDICATIONS:
        if not indication.applies(signs):
            continue
        for cell in indication.cells(signs):
            key = tuple(sorted(cell.items()))
            if key in tried or any(dict(candidate.cell) == dict(cell) for candidate in excluded):
                continue
            reason = contraindication(cell, signs) or _inapplicable(case, cell, split, layout)
            if reason:
                excluded.append(Candidate(cell, reason))
            else:
                tried[key] = Candidate(cell, indication.reason)
    return list(tried.values()), excluded


def contraindication(cell: Cell, signs: Signs) -> str | None:
    """Return the reason why a change cannot help a model with these signs; None for a change that may.

    >>> contraindication({"activation": "leaky_relu"}, Signs(activation="tanh"))
    'leaky_relu replaces a rectifier, and the activation is tanh'
    >>> contraindication({"penalty": "none"}, Signs(has_penalty=False))
    'the loss has no penalty'
    >>> contraindication({"penalty": "none"}, Signs(has_penalty=True, has_posterior=True))
    'without the KL term the latent has no prior; a lower weight keeps it'
    """
    if cell.get("activation") == "leaky_relu" and signs.activation not in RECTIFIERS:
        return f"leaky_relu replaces a rectifier, and the activation is {signs.activation}"
    if "penalty" in cell and not signs.has_penalty:
        return "the loss has no penalty"
    if cell.get("penalty") == "none" and signs.has_posterior:
        return "without the KL term the latent has no prior; a lower weight keeps it"
    if str(cell.get("penalty", "")).startswith("kl") and signs.target is None:
        return "the penalty has no target activation"
    return None


def _inapplicable(case: Case, cell: Cell, split: Split, layout: Any) -> str | None:
    reason = why_not_applicable(case, cell, split)
    if reason:
        return reason
    if "learning_rate" in cell and sets_rates_itself(case):
        return "the case's scheduler sets the learning rates itself"
    row = split.train.inputs[0].numel()
    if not cell.keys().isdisjoint(("neuron_resampling", "auxk")) and layout.units < row:
        return f"made for dictionaries: the code has {layout.units} units, a row has {row} numbers"
    unchanged = same_as_default(case, cell, layout)
    # a number of the case is no remedy of the table, and always changes something
    return "changes nothing of this model" if len(unchanged) == len(cell) and all(unchanged.values()) else None


def _weights(signs: Signs) -> list[Cell]:
    """Lower weights of the penalties, in steps of a factor of ten."""
    return [{name: _rounded(value * factor)} for name, value in signs.weights.items() for factor in WEIGHT_STEPS]


def _corrected(signs: Signs) -> list[Cell]:
    """A penalty of the same kind that the audit has no fault to find with: of the code, over the rows of the batch."""
    return [{"penalty": "l1" if signs.target is None else "kl_sigmoid_bottleneck"}]


def _around(signs: Signs) -> list[Cell]:
    """The values that the audit computed, and a third and three times of each."""
    values = [(name, value * factor) for name, value in signs.advice.items() for factor in (1.0, 1 / 3, 3.0)]
    return [{name: _rounded(value)} for name, value in values if value > 0]


def _rates(signs: Signs) -> list[Cell]:
    """A tenth and ten times the learning rate, and the usual rates of Adam."""
    rate = signs.rate
    if rate is None:
        return []
    rates = dict.fromkeys(_rounded(value) for value in (0.1 * rate, 10 * rate, *USUAL_RATES))
    return [{"learning_rate": value} for value in rates if not rate / 2 < value < 2 * rate]


def _rounded(value: float) -> float:
    """Two significant digits, so that a user can write the number."""
    return float(f"{value:.2g}")


INDICATIONS = (
    Indication(
        "an output that is no better than the mean, or data outside the range of its activation",
        lambda signs: signs.output_fails or bool(signs.rules & {"output_range"}),
        lambda signs: [{"output_activation": "linear"}],
    ),
    Indication(
        "inputs far from zero",
        lambda signs: bool(signs.rules & {"input_offset"}),
        lambda signs: [{"inputs": "centred"}],
    ),
    Indication(
        "a latent with a declared posterior",
        lambda signs: signs.has_posterior,
        lambda signs: [
            *_weights(signs),
            {"warmup": 0.2},
            {"warmup": 0.5},
            {"warmup": 0.8},
            {"warmup": 0.5, "warmup_cycles": 4},
            {"free_bits": 0.05},
            {"free_bits": 0.2},
        ],
    ),
    Indication("the audit computed this value", lambda signs: bool(signs.advice), _around),
    Indication(
        "units that do not vary with the input",
        lambda signs: signs.silent_units,
        lambda signs: [
            {"batchnorm": "on"},
            {"activation": "leaky_relu"},
            {"bias_init": "zero"},
            {"weight_init": "kaiming"},
            {"resample": 4},
            {"neuron_resampling": 4},
            {"auxk": 0.03125},
            {"codebook_restart": 4},
        ],
    ),
    Indication(
        "a faulty penalty, corrected",
        lambda signs: signs.has_penalty and not signs.has_posterior and bool(signs.serious.intersection(MISPLACED)),
        _corrected,
    ),
    Indication(
        "the loss has a penalty",
        lambda signs: (
            signs.has_penalty and (signs.silent_units or signs.output_fails or signs.poor or bool(signs.rules))
        ),
        lambda signs: [{"penalty": "none"}, *_weights(signs), {"penalty": "kl_sigmoid_bottleneck"}],
    ),
    Indication(
        "units that are silent at birth, or an output that is no better than the mean",
        lambda signs: bool(signs.rules & {"dead_at_birth"}) or signs.output_fails,
        lambda signs: [{"inputs": "centred"}],
    ),
    Indication(
        "silent units, a poor output or divergence, which another learning rate may cure",
        lambda signs: signs.silent_units or signs.output_fails or signs.diverged,
        _rates,
    ),
    Indication(
        "a loss that diverges, or units that die during training",
        lambda signs: signs.diverged or signs.died,
        lambda signs: [{"gradient_clip": 1.0}, {"rate_warmup": 0.1}],
    ),
    Indication(
        "units that do not vary with the input, where noise may help",
        lambda signs: signs.silent_units,
        lambda signs: [{"dropout": 0.1}, {"dropout": 0.2}, {"dropout": 0.4}],
    ),
    Indication(
        "no seed fails otherwise, but the audit names a fault or the reconstruction is poor",
        lambda signs: not (signs.silent_units or signs.output_fails or signs.diverged),
        lambda signs: [
            {"batchnorm": "on"},
            {"weight_init": "kaiming"},
            {"output_activation": "linear"},
            {"inputs": "centred"},
            *_rates(signs),
        ],
    ),
)
"""Signs and the changes that they suggest, in the order in which the changes are tried."""
