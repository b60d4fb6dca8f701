"""Rows to train on: what is accepted, what is held out, and the sentence for what cannot be trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from harness.data import Rows, split_of
from harness.data.split import hold_out
from harness.errors import HarnessError

INPUTS = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 4


def given(forum, data, **others):
    return replace(forum, data=lambda: data, **{"evaluation": None, "name": "mine", **others})


@pytest.mark.parametrize(
    "data", [INPUTS, INPUTS.numpy(), INPUTS.double(), Rows(INPUTS), TensorDataset(INPUTS), INPUTS.tolist()]
)
def test_every_form_of_the_same_rows_gives_the_same_split(forum, data):
    expected, found = split_of(given(forum, INPUTS)), split_of(given(forum, data))
    assert torch.equal(expected.train.inputs, found.train.inputs)
    assert expected.fingerprint == found.fingerprint


def test_rows_that_carry_a_gradient_or_are_arrays_are_the_same_rows(forum):
    factor, labels = torch.arange(50.0), LABELS.numpy()
    plain = split_of(given(forum, Rows(INPUTS, LABELS, {"f": factor}, LABELS)))
    carried = Rows(INPUTS.clone().requires_grad_(), labels, {"f": factor.clone().requires_grad_()}, labels)
    found = split_of(given(forum, carried))
    assert found.fingerprint == plain.fingerprint
    assert not found.train.inputs.requires_grad
    assert not found.train.factors["f"].requires_grad


@pytest.mark.parametrize("data", [(INPUTS, LABELS), TensorDataset(INPUTS, LABELS), (INPUTS, LABELS.double())])
def test_labels_follow_their_rows(forum, data):
    split = split_of(given(forum, data))
    for rows in (split.train, split.evaluation):
        home = [int((row == INPUTS).all(1).nonzero()[0, 0]) for row in rows.inputs]
        assert torch.equal(rows.labels, LABELS[home])


def test_a_fifth_is_held_out_and_nothing_is_lost(forum):
    split = split_of(given(forum, INPUTS, labels=LABELS, factors={"size": torch.arange(50.0)}))
    assert (len(split.train), len(split.evaluation)) == (40, 10)
    assert sorted([*split.train.factors["size"].tolist(), *split.evaluation.factors["size"].tolist()]) == list(
        range(50)
    )


def test_what_is_held_out_depends_on_the_number_of_rows_alone(forum):
    first, second = split_of(given(forum, INPUTS)), split_of(given(forum, INPUTS + 1))
    assert torch.allclose(first.evaluation.inputs + 1, second.evaluation.inputs)


def test_neighbours_are_held_out_together():
    kept, held = hold_out(Rows(INPUTS, blocks=torch.arange(50) // 5))
    assert len(held) == 10
    assert not set(kept.blocks.tolist()) & set(held.blocks.tolist())


def test_one_block_cannot_be_divided():
    with pytest.raises(HarnessError, match="all rows lie in one block"):
        hold_out(Rows(INPUTS, blocks=torch.zeros(50, dtype=torch.long)))


def test_other_data_take_the_place_of_the_case_s_own(forum, tmp_path):
    np.save(tmp_path / "a.npy", INPUTS.numpy())
    assert split_of(forum, "digits").train.labels is not None
    assert len(split_of(forum, str(tmp_path / "a.npy")).train) == 40
    with pytest.raises(HarnessError, match="no data set is called 'digit'; did you mean 'digits'"):
        split_of(forum, "digit")


def test_the_fingerprint_sees_a_single_bit_and_a_label(forum):
    changed = INPUTS.clone()
    changed[7, 1] = torch.nextafter(changed[7, 1], torch.tensor(9.0))
    prints = {split_of(given(forum, each)).fingerprint for each in (INPUTS, changed, (INPUTS, LABELS))}
    assert len(prints) == 3


NAN, INFINITE = INPUTS.clone(), INPUTS.clone()
NAN[4, 0] = float("nan")
INFINITE[49, 2] = float("inf")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (NAN, r"case mine: data: NaN or infinite values in 1 rows \(the first is row 4\)"),
        (INFINITE, r"the first is row 49"),
        (INPUTS[0], r"expected \[sample, feature, ...\], got an array of shape \[3\]"),
        (torch.zeros(50, 0), r"got an array of shape \[50, 0\]"),
        (INPUTS[:9], "expected at least 10 rows, got 9"),
        (INPUTS[:0], r"an array of shape \[0, 3\]"),
        (torch.ones(50, 3), "all 50 rows are equal: there is nothing to learn"),
        (INPUTS.to(torch.complex64), "expected real numbers"),
        ("rows.csv", "expected numbers"),
        ([[1.0], [1.0, 2.0]], "expected a rectangular array of numbers"),
        (None, "expected numbers, got an array of object"),
        ((INPUTS, LABELS[:7]), r"labels: expected one value per row, got \[7\] for 50 rows"),
        ((INPUTS, LABELS + 0.5), "expected whole-number labels"),
        (Rows(INPUTS, factors={"size": torch.full((50,), float("nan"))}), "factor 'size': NaN or infinite values"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused_with_the_reason(forum, data, sentence):
    with pytest.raises(HarnessError, match=sentence):
        split_of(given(forum, data))


def test_held_out_rows_are_checked_by_their_own_name(forum):
    with pytest.raises(HarnessError, match="case mine: evaluation: NaN"):
        split_of(given(forum, INPUTS, evaluation=lambda: NAN))
    with pytest.raises(HarnessError, match=r"rows differ in shape: \[3\] in training, \[2\] in evaluation"):
        split_of(given(forum, INPUTS, evaluation=lambda: INPUTS[:, :2]))


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield INPUTS[0]


class Ragged(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.zeros(index + 1)


class Empty(Ragged):
    def __len__(self):
        return 0


@pytest.mark.parametrize(
    ("data", "sentence"),
    [(Endless(), "expected a torch Dataset with a length"), (Ragged(), "differ in shape"), (Empty(), "has no items")],
)
def test_data_sets_that_cannot_be_held_in_memory_are_refused(forum, data, sentence):
    with pytest.raises(HarnessError, match=sentence):
        split_of(given(forum, data))


def test_data_that_cannot_be_read_are_an_error_line(forum):
    class Broken(Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, index):
            raise OSError("disk")

    with pytest.raises(HarnessError, match="case mine: data: reading it failed with OSError: disk"):
        split_of(given(forum, Broken()))
    with pytest.raises(HarnessError, match="case mine: evaluation: reading it failed with OSError: disk"):
        split_of(given(forum, INPUTS, evaluation=lambda: Broken()))


def test_references_of_the_training_rows_are_not_silently_missing_from_others(forum):
    size = {"size": torch.arange(50.0)}
    with pytest.raises(HarnessError, match=r"case mine: labels, factor 'size': .* let `evaluation` return"):
        split_of(given(forum, INPUTS, labels=LABELS, factors=size, evaluation=lambda: INPUTS[:20]))
    with pytest.raises(HarnessError, match="case mine: factor 'size': "):
        split_of(given(forum, INPUTS, labels=LABELS, factors=size, evaluation=lambda: (INPUTS[:20], LABELS[:20])))
    held = Rows(INPUTS[:20], LABELS[:20], {"size": size["size"][:20]})
    found = split_of(given(forum, INPUTS, labels=LABELS, factors=size, evaluation=lambda: held)).evaluation
    assert torch.equal(found.labels, LABELS[:20])
    assert torch.equal(found.factors["size"], size["size"][:20])


@pytest.mark.parametrize("data", [(INPUTS, LABELS), TensorDataset(INPUTS, LABELS), Rows(INPUTS, LABELS)])
def test_labels_that_only_data_returns_are_not_silently_missing_from_others(forum, data):
    with pytest.raises(HarnessError, match=r"case mine: labels: .* let `evaluation` return .* the inputs alone"):
        split_of(given(forum, data, evaluation=lambda: INPUTS[:20]))
    found = split_of(given(forum, data, evaluation=lambda: (INPUTS[:20], LABELS[:20]))).evaluation
    assert torch.equal(found.labels, LABELS[:20])


def test_factors_that_only_data_returns_are_not_either(forum):
    rows = Rows(INPUTS, factors={"size": torch.arange(50.0)})
    with pytest.raises(HarnessError, match=r"case mine: factor 'size': .* let `evaluation` return"):
        split_of(given(forum, rows, evaluation=lambda: INPUTS[:20]))


class Pairs(Dataset):
    """Items of two parts, as the data sets of most autoencoders have them."""

    def __init__(self, second):
        self.second = second

    def __len__(self):
        return 50

    def __getitem__(self, index):
        return INPUTS[index], self.second(index)


@pytest.mark.parametrize(
    "data",
    [Pairs(lambda index: INPUTS[index]), Pairs(lambda index: None), TensorDataset(INPUTS, INPUTS), (INPUTS, INPUTS)],
    ids=["input again", "nothing", "tensors", "tuple"],
)
def test_a_target_that_is_the_input_again_is_no_label(forum, data):
    expected, found = split_of(given(forum, INPUTS)), split_of(given(forum, data))
    assert torch.equal(expected.train.inputs, found.train.inputs)
    assert found.train.labels is None
    assert expected.fingerprint == found.fingerprint


@pytest.mark.parametrize("data", [Pairs(lambda index: INPUTS[index] + 1), (INPUTS, INPUTS + 1)], ids=["items", "tuple"])
def test_a_target_that_is_another_value_is_refused_not_dropped(forum, data):
    with pytest.raises(HarnessError, match=r"case mine: data: .* differs from them, as a target does"):
        split_of(given(forum, data))


def test_one_number_a_row_may_have_a_label_of_one_number(forum):
    rows = Pairs(lambda index: LABELS[index : index + 1])
    column = TensorDataset(INPUTS[:, :1], LABELS[:, None])
    assert split_of(given(forum, rows)).train.labels.unique().tolist() == [0, 1, 2, 3]
    assert split_of(given(forum, column)).train.labels.unique().tolist() == [0, 1, 2, 3]
