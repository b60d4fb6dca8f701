"""A diagnosis is read once for the whole report, and nothing that is shown of it is lost by that."""

import json

import pandas
import pytest
from fake_results import effects_of, study, without_diagnosis

from harness.diagnosis import sweep
from harness.report import write_report
from harness.report.explanation import explain_experiment
from harness.report.figure_units import units_of
from harness.report.threshold_table import swept_and_shown
from harness.results import MemberRecord, StoredResults
from harness.results.frames import units_frame


@pytest.mark.parametrize("change", [None, without_diagnosis])
def test_what_is_shown_of_a_diagnosis_is_what_the_whole_one_says(change):
    records = study(seeds=3, **({"change": change} if change else {})).records
    swept, shown = swept_and_shown(records)
    assert swept == sweep(record.diagnosis for record in records)
    pandas.testing.assert_frame_equal(units_frame(shown), units_frame(records))
    assert explain_experiment(shown) == explain_experiment(records)
    assert units_of(shown) == units_of(records)
    assert [each.key for each in shown] == [each.key for each in records]
    lengths = [[len(each.diagnosis.content) for each in some] for some in (shown, records)]
    assert all(short < whole / 2 or whole == 2 for short, whole in zip(*lengths, strict=True))


def test_a_unit_of_which_little_is_known_keeps_what_is_known():
    unit = {"index": 0, "verdict": "dead", "mean": None, "references": {}, "range_ratio": 0.0}
    stored = {"units": [unit], "activation": "relu", "rows": 400, "measures": {}}
    (shown,) = swept_and_shown([MemberRecord("k", "v", {}, 0, diagnosis=stored)])[1]
    assert shown.diagnosis == {"units": [{"index": 0, "verdict": "dead", "mean": None}]}


def test_each_diagnosis_is_parsed_once_for_a_report(tmp_path, monkeypatch):
    results = study(seeds=2)
    whole = {record.diagnosis.content for record in results.records}
    effects, parsed, loads = effects_of(results), [], json.loads

    def counted(text, **options):
        parsed.append(text)
        return loads(text, **options)

    monkeypatch.setattr(json, "loads", counted)
    write_report(StoredResults(results.manifest, results.records), effects, tmp_path)
    assert sorted(text for text in parsed if text in whole) == sorted(
        record.diagnosis.content for record in results.records
    )
