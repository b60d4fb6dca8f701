"""The units' histories as pictures: means over seeds, one row per rank of a unit, and nothing invented where nothing is known."""

from dataclasses import replace

import numpy as np
import pytest
from fake_results import study, without_diagnosis

from harness.report import heat_maps
from harness.report.figure_heatmap import HeatmapCanvas, unit_histories
from harness.report.svg import inline_svg, sheet
from harness.results import StoredResults
from harness.results.records import MemberRecord

# what another test left behind may be collected, and complained of, in any
NO_WARNING = pytest.mark.filterwarnings(
    "error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_a_row_is_the_mean_over_the_seeds_of_the_units_of_a_rank():
    records = [
        MemberRecord("a", "v", {}, 0, unit_history={"live": [[1, 0], [1, 1]]}, history={"step": [0, 9]}),
        MemberRecord("b", "v", {}, 1, unit_history={"live": [[1, 1], [0, 1]]}, history={"step": [0, 9]}),
    ]
    rows, labels, steps = unit_histories(records, "live")
    assert rows.tolist() == [[1.0, 1.0], [0.5, 0.5]]  # the largest at the end, then the other, whatever their numbers
    assert labels == ["v #1", "v #2"]
    assert steps == [0, 9]


def test_a_member_that_stopped_early_counts_while_it_lasted():
    records = [
        MemberRecord("a", "v", {}, 0, unit_history={"live": [[0.0]]}, history={"step": [0]}),
        MemberRecord("b", "v", {}, 1, unit_history={"live": [[1.0], [1.0]]}, history={"step": [0, 9]}),
    ]
    assert unit_histories(records, "live")[0].tolist() == [[0.5, 1.0]]


def test_what_no_seed_knows_stays_empty():
    record = MemberRecord("a", "v", {}, 0, unit_history={"live": [[float("nan")], [1.0]]}, history={"step": [0, 9]})
    assert np.isnan(unit_histories([record], "live")[0][0, 0])


@NO_WARNING
def test_a_picture_is_written_for_each_measure_that_is_there(tmp_path):
    assert [path.name for path in heat_maps(study(seeds=2), tmp_path)] == ["heat_activation_frequency.png"]
    assert (tmp_path / "heat_activation_frequency.png").read_bytes().startswith(b"\x89PNG")


def test_no_picture_is_written_of_members_that_failed(tmp_path):
    assert heat_maps(study(seeds=2, change=without_diagnosis), tmp_path) == []


@NO_WARNING
@pytest.mark.parametrize("unknown", [False, True])
def test_a_picture_does_not_know_which_was_drawn_before_it(unknown):
    random = np.random.default_rng(0)
    one, other = random.uniform(0, 1, (6, 5)), 3 + 40 * random.uniform(0, 1, (6, 5))
    other[2] = np.nan if unknown else other[2]
    labels, steps = [f"penalty=$kl$ a rather long name u{unit}" for unit in range(6)], [0.0, 10.0, 20.0, 500.0, 9000.0]
    sheet = HeatmapCanvas(labels, steps)
    pictures = [sheet.pixels(rows, title).copy() for rows, title in ((one, "share"), (other, "bits"), (one, "share"))]
    alone = [HeatmapCanvas(labels, steps).pixels(rows, title) for rows, title in ((one, "share"), (other, "bits"))]
    assert np.array_equal(pictures[0], alone[0])
    assert np.array_equal(pictures[1], alone[1])
    assert np.array_equal(pictures[2], alone[0])
    assert not np.array_equal(pictures[0], pictures[1])


def test_measures_of_other_units_get_labels_of_their_own(tmp_path):
    step = {"step": [0, 9]}
    both = {"activation_frequency": [[0.1, 0.2], [0.3, 0.4]], "entropy_bits": [[1.0, 2.0], [2.0, 3.0]]}
    records = [
        MemberRecord("a", "v", {}, 0, unit_history=both, history=step),
        MemberRecord("b", "w", {}, 0, unit_history={"entropy_bits": [[0.5], [0.7]]}, history=step),
    ]
    assert len(unit_histories(records, "activation_frequency")[1]) == 2
    assert unit_histories(records, "entropy_bits")[1] == ["v #1", "v #2", "w #1"]
    together, alone = tmp_path / "together", tmp_path / "alone"
    for folder in (together, alone):
        folder.mkdir()
    heat_maps(StoredResults({}, records), together)
    only = [replace(each, unit_history={"entropy_bits": each.unit_history["entropy_bits"]}) for each in records]
    heat_maps(StoredResults({}, only), alone)
    assert (together / "heat_entropy_bits.png").read_bytes() == (alone / "heat_entropy_bits.png").read_bytes()


@NO_WARNING
def test_a_measure_that_no_unit_has_makes_no_picture_and_leaves_none_of_an_earlier_report(tmp_path):
    nothing = {"activation_frequency": [[float("nan")] * 2] * 3}
    record = MemberRecord("a", "v", {}, 0, unit_history=nothing, history={"step": [0, 9, 18]})
    (tmp_path / "heat_activation_frequency.png").write_bytes(b"of an activation that had an off state")
    assert heat_maps(StoredResults({}, [record]), tmp_path) == []
    assert not list(tmp_path.iterdir())


@NO_WARNING
def test_names_in_a_script_that_no_font_has_are_drawn_without_a_warning():
    names = ["活性=中 u0", "活性=大 u0"]
    assert HeatmapCanvas(names, [0.0]).pixels(np.array([[0.1], [0.9]]), "share").any()
    figure, (axes,) = sheet((100, 100))
    axes.set_title(names[0])
    assert names[0] in inline_svg(figure, "one", "")
