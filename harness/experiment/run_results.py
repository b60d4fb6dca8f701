"""The results of a run, as Python code reads them: tables of members, effects and cells, and the report."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.experiment.run_summary import RunSummary

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

    from harness.effects import Effects


class Results:
    """Results of a run. Indexing, iterating and the attributes of a DataFrame refer to the table of members.

    Args:
        summary: of the run.

    Attributes:
        summary: experiment, records, notes, seconds.
        members: one row per member: factors, `seed`, `status`, `verdict`, `failed`, `collapsed`, `live_units`, `r2`, ...
        effects: one row per level, interaction or contrast, and outcome: `estimate`, `low`, `high`, `p_adjusted`, ...
        cells: one row per variant: `collapsed` of `members`, `share` with its interval, live units and R2.
        answer: the answer of the report; None if the report has none.
        report: path of report.html; None if it was not written.
    """

    def __init__(self, summary: RunSummary) -> None:
        self.summary = summary

    @cached_property
    def members(self) -> "DataFrame":
        """Table of members."""
        from harness.results.frames import members_frame

        return members_frame(self.summary.records)

    @property
    def effects(self) -> "DataFrame":
        """Table of effects."""
        from pandas import DataFrame

        return DataFrame([effect.to_dict() for effect in self._analysis.family])

    @property
    def cells(self) -> "DataFrame":
        """Table of variants."""
        from pandas import DataFrame

        return DataFrame([cell.to_dict() for cell in self._analysis.cells])

    @property
    def answer(self) -> dict[str, Any] | None:
        """Answer of the report: a headline, and one entry per remedy."""
        file = None if self.report is None else self.report.with_name("report.json")
        if file is None or not file.is_file():
            return None
        answer = json.loads(file.read_text(encoding="utf-8")).get("answer")
        return dict(answer) if isinstance(answer, Mapping) else None

    @property
    def report(self) -> Path | None:
        """Path of the report."""
        return self.summary.report

    def model(self, member: str) -> "nn.Module":
        """Return the trained model of a member, treated as in its variant, with its weights and in eval mode.

        The worst member of the baseline and the best one of every other variant have their weights beside the results,
        with `keep_weights: all` every member. Any other member is trained again, which gives the same weights.

        Args:
            member: its key in the table of members, an unambiguous beginning of it, or its variant and seed, as in
                "as_posted s3".

        Raises:
            HarnessError: if there is no such member, or it cannot be trained again to the same result.
        """
        from harness.experiment.member_model import member_model

        return member_model(self.summary.experiment, member, self.summary.root).model

    @cached_property
    def _analysis(self) -> "Effects":
        from harness.effects import analyse

        return analyse(self.summary.records, self.summary.experiment)

    def __getitem__(self, key: Any) -> Any:
        return self.members[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.summary.records)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("summary", "members"):  # while unpickling, these are not there yet
            raise AttributeError(name)
        return getattr(self.members, name)

    def __repr__(self) -> str:
        records = self.summary.records
        failed, collapsed = (sum(bool(getattr(record, name)) for record in records) for name in ("failed", "collapsed"))
        variants = len({record.variant for record in records})
        return (
            f"<Results of {self.summary.experiment.name!r}: {len(records)} members, {variants} variants, "
            f"{failed} failed, {collapsed} collapsed; report: {self.report}>"
        )

    def _repr_html_(self) -> str:
        link = f'<p><a href="{escape(self.report.resolve().as_uri())}">report</a></p>' if self.report else ""
        return f"<p>{escape(repr(self))}</p>{link}{self.members._repr_html_()}"
