"""The diagnosis as a value: frozen, printable, and unchanged by a round trip through JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.diagnosis.finding import Finding, json_safe
from harness.diagnosis.frame import frame
from harness.diagnosis.render import headline, html, text
from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.units import NAN, Flag, OutputDiagnosis, Reference, UnitDiagnosis
from harness.diagnosis.verdicts import COLLAPSED, LayerVerdict, OutputVerdict, UnitVerdict

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Diagnosis of a layer: its verdict, its units, its output, and the findings.

    Args:
        verdict: of the layer. flags: strings that add to it.
        units: one `UnitDiagnosis` per unit. output: of the model's output, or None.
        findings: evidence, meaning and remedy of each, gravest first.
        measures: of the layer: `live_units`, `live_share`, `effective_rank`, `rank` (dimensions in use),
            `participation_ratio` (as measured), `participation_ratio_corrected` (for the number of rows), `groups`,
            `dimension` (of the inputs), `code_ablation` (R2 lost with all units at their means), `rms`; by the fields' names
            `rankme`, and where they apply `l0`, `dormant`, `kl` (summed over units, nats), `fvu`, and behind a quantizer
            `codes_in_use` and `perplexity`.
        activation: name of the layer's activation function.
        rows: number of rows judged.
        links: |correlations| at which groups of copies join, strongest first; empty in a large layer.
        activation_inferred: True where the activation was chosen from the values.
        distinct_rows: number of rows with different inputs, on which every bound rests; -1 in results of earlier
            versions.
    """

    verdict: LayerVerdict
    flags: tuple[Flag, ...]
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
    activation_inferred: bool = False
    distinct_rows: int = -1

    @property
    def collapsed(self) -> bool:
        """True for the verdicts that count as a collapse: full_collapse, single_live_unit, near_collapse."""
        return self.verdict in COLLAPSED

    @property
    def live_units(self) -> int:
        """Number of live units."""
        return sum(unit.live for unit in self.units)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values under the names of the attributes; numbers that are not finite become None."""
        return {**_plain_fields(self), "collapsed": self.collapsed, "thresholds": self.thresholds.to_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Diagnosis":
        """Return the diagnosis that `to_dict` wrote, in this version or an earlier one."""
        output = stored.get("output")
        return cls(
            verdict=LayerVerdict(stored["verdict"]),
            flags=tuple(map(Flag, stored["flags"])),
            units=tuple(map(_unit_from, stored["units"])),
            output=None if output is None else _output_from(output),
            findings=tuple(map(Finding.from_dict, stored["findings"])),
            measures={name: _number(value) for name, value in stored["measures"].items()},
            activation=stored["activation"],
            rows=stored["rows"],
            target=stored.get("target"),
            links=tuple(stored.get("links", ())),
            references=tuple(stored.get("references", ())),
            thresholds=Thresholds.from_dict(stored["thresholds"]),
            activation_inferred=stored.get("activation_inferred", False),
            distinct_rows=stored.get("distinct_rows", -1),
        )

    def to_frame(self) -> "DataFrame":
        """Return a pandas table with one row per unit and intervals as `<measure>_low` and `<measure>_high`."""
        return frame(self.units)

    def __str__(self) -> str:
        return text(self)

    def __repr__(self) -> str:
        return f"Diagnosis({headline(self)})"

    def _repr_html_(self) -> str:
        return html(self)


def _plain_fields(value: Any) -> dict[str, Any]:
    return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if type(value) in PLAIN:  # the quick way for nearly all values
        return json_safe(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Finding):
        return value.to_dict()
    if isinstance(value, UnitDiagnosis | Reference | OutputDiagnosis | Thresholds):
        return _plain_fields(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return json_safe(value)


def _number(value: Any) -> Any:
    return NAN if value is None else value


def _attributes(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(_number(item) for item in value) if isinstance(value, list) else _number(value)
        for name, value in stored.items()
    }


def _unit_from(stored: Mapping[str, Any]) -> UnitDiagnosis:
    references = {name: Reference(**_attributes(reference)) for name, reference in stored["references"].items()}
    parts = {"verdict": UnitVerdict(stored["verdict"]), "flags": tuple(map(Flag, stored["flags"]))}
    return UnitDiagnosis(**{**_attributes(stored), **parts, "references": references})


def _output_from(stored: Mapping[str, Any]) -> OutputDiagnosis:
    return OutputDiagnosis(**{**_attributes(stored), "verdict": OutputVerdict(stored["verdict"])})


PLAIN = (float, int, bool, type(None))
