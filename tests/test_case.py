"""A case is checked when it is made: where, what, and what instead."""

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness.case import Case
from harness.errors import HarnessError
from harness.factors import training_numbers

WRONG = {
    "epochs below nought": ({"train": {"epochs": -3}}, r"Case\.train\.epochs: expected a number from 1, got -3"),
    "epochs as a word": ({"train": {"epochs": "3"}}, r"Case\.train\.epochs: expected a number from 1, got '3'"),
    "half an epoch": ({"train": {"epochs": 2.5}}, r"Case\.train\.epochs: expected a whole number, got 2\.5"),
    "a rate below nought": (
        {"train": {"learning_rate": -1}},
        r"Case\.train\.learning_rate: expected a number above 0, got -1",
    ),
    "an empty batch": (
        {"train": {"batch_size": 0}},
        r"Case\.train\.batch_size: expected a number from 1, got 0",
    ),
    "a batch below nought": (
        {"train": {"batch_size": -4}},
        r"Case\.train\.batch_size: expected a number from 1, got -4",
    ),
    "no snapshot": (
        {"train": {"snapshot_every": 0}},
        r"Case\.train\.snapshot_every: expected a number of epochs above 0",
    ),
    "half a snapshot": (
        {"train": {"snapshot_every": 0.5}},
        r"Case\.train\.snapshot_every: expected a whole number, got 0\.5",
    ),
    "another device": (
        {"train": {"device": "gpu"}},
        r"Case\.train\.device: expected auto, cpu, cuda, cuda:0 or mps, got 'gpu'",
    ),
    "an unknown number": (
        {"train": {"epoch": 3}},
        r"Case\.train: no training number is called 'epoch'; did you mean 'epochs'",
    ),
    "train as a list": ({"train": [3]}, r"Case\.train: expected \{name: value\}, got list \[3\]"),
    "a list as number": (
        {"numbers": {"rho": [0.05]}},
        r"Case\.numbers\['rho'\]: expected a number, got list \[0\.05\]",
    ),
    "numbers as a list": ({"numbers": [0.05]}, r"Case\.numbers: expected \{name: value\}, got list"),
    "factors as a list": ({"factors": [torch.ones(3)]}, r"Case\.factors: expected \{name: value\}, got list"),
}


def made(**given):
    return harness.Case(
        model=lambda: None, data=lambda: None, losses=lambda model, batch: {}, bottleneck="enc", **given
    )


@pytest.mark.parametrize(("given", "sentence"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_when_the_case_is_made(given, sentence):
    with pytest.raises(HarnessError, match=sentence):
        made(**given)


def test_a_case_and_an_experiment_read_training_numbers_alike():
    given = {"epochs": 3.0, "batch_size": np.int64(64), "learning_rate": 1, "snapshot_every": 2.0, "device": "cuda:0"}
    plain = {"epochs": 3, "batch_size": 64, "learning_rate": 1.0, "snapshot_every": 2, "device": "cuda:0"}
    assert made(train=given).train == training_numbers(given) == plain
    assert all(type(made(train=given).train[name]) is type(value) for name, value in plain.items())


def test_a_number_may_be_any_kind_of_number():
    assert made(numbers={"rho": np.float32(0.5), "beta": torch.tensor(0.5), "on": True}).numbers["rho"] == 0.5


@pytest.mark.parametrize(
    ("key", "value"), [("objective", ""), ("objective", None), ("posterior", 3), ("posterior", "")]
)
def test_the_objective_and_the_posterior_are_names(key, value):
    with pytest.raises(HarnessError, match=f"Case.{key}: expected "):
        Case(nn.Identity, lambda: None, lambda model, batch: {}, "0", **{key: value})


def test_the_objective_is_not_weighed():
    case = Case(nn.Identity, lambda: None, lambda model, batch: {}, "0", numbers={"beta": 0.5}, objective="similarity")
    assert case.total({"similarity": torch.tensor(2.0), "kl": torch.tensor(4.0)}, case.numbers) == 4
