"""The diagnosis as a value: frozen, printable, and the same again after JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.diagnosis.finding import Finding, json_safe
from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.verdicts import COLLAPSED, CONSTANT, UNJUDGED, LayerVerdict, OutputVerdict, UnitVerdict

if TYPE_CHECKING:
    from pandas import DataFrame

Interval = tuple[float, float]
NAN = math.nan
UNKNOWN: Interval = (NAN, NAN)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a unit shares with one reference variable (labels, or a factor).

    Args:
        mutual_information: nats, unclamped, from about 0 (nothing) to `entropy`; exactly 0 for a constant unit.
        p: of the test of independence. p_adjusted: Benjamini-Hochberg over the layer's units x references.
        interval: 95 % bounds of the *binned* information, which is a lower bound of the information itself.
        entropy: of the reference, nats; NaN for a continuous one.
        delta: what counts as negligible, nats.
        flag: dependent, negligible or inconclusive.
        codes_entropy: of the unit's codes in the binned table, nats.
    """

    mutual_information: float = NAN
    p: float = NAN
    p_adjusted: float = NAN
    interval: Interval = UNKNOWN
    entropy: float = NAN
    delta: float = NAN
    flag: str = "inconclusive"
    codes_entropy: float = NAN


@dataclass(frozen=True, slots=True)
class UnitDiagnosis:
    """One unit: its verdict, its flags, and every measure with its 95 % interval.

    Args:
        activation_frequency: share of rows on which it fires; NaN where the activation has no off state. Its interval
            is Wilson's; `activation_frequency_bounds` are Clopper-Pearson's, on which "never" and "always" rest.
        entropy_bits: of the unit's values at `resolution`.
        mutual_information: nats with the labels if given, else the largest over factors; `references` has each.
        variation: standard deviation / RMS, from 0 (constant) to 1 (mean zero).
        range_ratio: (max - min) / `tolerance`; at most 1 is constant. outside_ratio: over rows where it does not fire.
        before_ratio: the same before normalisation, where that was given.
        energy_share: the largest share of the unit's energy that one row holds.
        saturated: share of values within .001 of 0 or 1 (sigmoid). bimodal_margin: the least distance from 0 or 1 at
            which the unit would be `saturated_bimodal`: 95 % of its values lie within it, some at either end.
        reliability: test-retest, 1 (the same again) to 0 (noise); NaN without a second pass. reliability_bound is the
            upper bound that the verdict used, which pools the units of a layer that show no reliability.
        ablation: R2 lost when the decoder gets the unit's mean instead.
        active: Burda's variance > 0.01, for comparison only.
    """

    index: int
    verdict: UnitVerdict
    flags: tuple[str, ...] = ()
    mean: float = NAN
    mean_interval: Interval = UNKNOWN
    standard_deviation: float = NAN
    standard_deviation_interval: Interval = UNKNOWN
    minimum: float = NAN
    maximum: float = NAN
    activation_frequency: float = NAN
    activation_frequency_interval: Interval = UNKNOWN
    activation_frequency_bounds: Interval = UNKNOWN
    fired_rows: int = 0
    entropy_bits: float = NAN
    entropy_bits_interval: Interval = UNKNOWN
    resolution: float = NAN
    mutual_information: float = NAN
    mutual_information_interval: Interval = UNKNOWN
    references: Mapping[str, Reference] = field(default_factory=dict)
    variation: float = NAN
    tolerance: float = NAN
    range_ratio: float = NAN
    outside_ratio: float = NAN
    before_ratio: float = NAN
    kurtosis: float = NAN
    energy_share: float = NAN
    saturated: float = NAN
    bimodal_margin: float = NAN
    low_end: bool = False
    high_end: bool = False
    stochastic: bool = False
    reliability: float = NAN
    reliability_interval: Interval = UNKNOWN
    reliability_bound: float = NAN
    ablation: float = NAN
    active: bool = False

    @property
    def live(self) -> bool:
        """Whether it is judged and not constant."""
        return self.verdict not in CONSTANT and self.verdict not in UNJUDGED


@dataclass(frozen=True)
class OutputDiagnosis:
    """The reconstruction: R2 about the evaluation mean, beside what principal components reach.

    Args:
        r2: 1 (exact), 0 (as good as the mean), below 0 (worse than the mean).
        variance_ratio: variance of the reconstruction / variance of the data.
        dead_share: share of features that the reconstruction holds constant while the data vary.
        pca_r2: R2 of PCA with 1, 2, ... components, up to the number of live units.
        pca_rows: which rows the components were fitted on: "training" or "evaluation".
    """

    verdict: OutputVerdict
    r2: float = NAN
    r2_interval: Interval = UNKNOWN
    variance_ratio: float = NAN
    dead_share: float = NAN
    dead_features: tuple[int, ...] = ()
    pca_r2: tuple[float, ...] = ()
    pca_rows: str = "training"


@dataclass(frozen=True)
class Diagnosis:
    """Is this layer collapsed, which unit, and how.

    Args:
        verdict: the layer's. flags: plain strings that add to it.
        units: one `UnitDiagnosis` a unit. output: the reconstruction's, or None.
        findings: what was found, with evidence, meaning and remedy, gravest first.
        measures: of the layer: `live_units`, `live_share`, `effective_rank`, `participation_ratio` (as measured),
            `participation_ratio_corrected` (for the number of rows), `groups`, `dimension`, `rms`.
        links: |correlations| at which groups of copies join, strongest first; empty in a large layer.
        rows: how many rows it rests on.
    """

    verdict: LayerVerdict
    flags: tuple[str, ...]
    units: tuple[UnitDiagnosis, ...]
    output: OutputDiagnosis | None
    findings: tuple[Finding, ...]
    measures: Mapping[str, float]
    activation: str
    rows: int
    target: float | None = None
    links: tuple[float, ...] = ()
    references: tuple[str, ...] = ()
    thresholds: Thresholds = THRESHOLDS

    @property
    def collapsed(self) -> bool:
        """Whether it counts as collapsed, as an outcome: full_collapse, single_live_unit or near_collapse."""
        return self.verdict in COLLAPSED

    @property
    def live_units(self) -> int:
        """How many units are not constant."""
        return sum(unit.live for unit in self.units)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values under the names of the attributes; what is not finite becomes None."""
        return {**_plain_fields(self), "collapsed": self.collapsed, "thresholds": self.thresholds.to_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Diagnosis":
        """The diagnosis that `to_dict` wrote."""
        output = stored.get("output")
        return cls(
            verdict=LayerVerdict(stored["verdict"]),
            flags=tuple(stored["flags"]),
            units=tuple(_unit_from(each) for each in stored["units"]),
            output=None if output is None else _output_from(output),
            findings=tuple(Finding.from_dict(each) for each in stored["findings"]),
            measures={name: _number(value) for name, value in stored["measures"].items()},
            activation=stored["activation"],
            rows=stored["rows"],
            target=stored.get("target"),
            links=tuple(stored.get("links", ())),
            references=tuple(stored.get("references", ())),
            thresholds=Thresholds(**stored["thresholds"]),
        )

    def to_frame(self) -> "DataFrame":
        """A pandas table with one row a unit; intervals as `<measure>_low` and `<measure>_high`."""
        from harness.diagnosis.frame import frame

        return frame(self)

    def __str__(self) -> str:
        from harness.diagnosis.render import text

        return text(self)

    def _repr_html_(self) -> str:
        from harness.diagnosis.render import html

        return html(self)


def _plain_fields(value: Any) -> dict[str, Any]:
    return {name: _jsonable(getattr(value, name)) for name in value.__dataclass_fields__}


def _jsonable(value: Any) -> Any:
    if type(value) in PLAIN:  # nearly all are
        return json_safe(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Finding):
        return value.to_dict()
    if isinstance(value, UnitDiagnosis | Reference | OutputDiagnosis | Thresholds):
        return _plain_fields(value)
    if isinstance(value, tuple):
        return [_jsonable(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _jsonable(each) for name, each in value.items()}
    return json_safe(value)


def _number(value: Any) -> Any:
    return NAN if value is None else value


def _typed(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(_number(each) for each in value) if isinstance(value, list) else _number(value)
        for name, value in stored.items()
    }


def _unit_from(stored: Mapping[str, Any]) -> UnitDiagnosis:
    references = {name: Reference(**_typed(each)) for name, each in stored["references"].items()}
    return UnitDiagnosis(**{**_typed(stored), "verdict": UnitVerdict(stored["verdict"]), "references": references})


def _output_from(stored: Mapping[str, Any]) -> OutputDiagnosis:
    return OutputDiagnosis(**{**_typed(stored), "verdict": OutputVerdict(stored["verdict"])})


PLAIN = (float, int, bool, type(None))
