"""Bad input is one clear error each; bad science never is."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays
from planted_codes import labels, normal

from harness import HarnessError, diagnose

CODE = torch.relu(normal(100))


@pytest.mark.parametrize(
    ("activations", "more", "message"),
    [
        (CODE[0], {}, r"a matrix \[sample, unit\] is wanted"),
        (CODE[None], {}, r"two readings.*members=True.*flatten"),
        (CODE, {"members": True}, r"members=True wants \[member, sample, unit\]"),
        (CODE[None, None], {}, r"a matrix \[sample, unit\] is wanted"),
        (CODE[:0], {}, "no rows, no units"),
        (CODE[:, :0], {}, "no rows, no units"),
        (CODE > 0, {}, "expected real numbers, got torch.bool"),
        (CODE.to(torch.complex64), {}, "expected real numbers, got torch.complex64"),
        (np.array([["a"]], dtype=object), {}, "expected real numbers, got an array of object"),
        (np.ones((3, 2), dtype=bool), {}, "expected real numbers, got an array of bool"),
        ([[1.0], [1.0, 2.0]], {}, "got rows of different lengths"),
        (CODE, {"activation": "leaky-relu"}, "did you mean 'leaky_relu'"),
        (CODE, {"dtype": "float23"}, "no precision is called 'float23'"),
        (CODE, {"labels": labels(99)}, "99 values for 100 rows"),
        (CODE, {"labels": labels(100).float()}, "labels.long.. if they are classes"),
        (CODE, {"labels": torch.arange(100)}, "100 classes for 100 rows"),
        (CODE, {"labels": torch.zeros(100, 3).long()}, "one value a row is wanted"),
        (CODE, {"factors": [1, 2]}, "a mapping from name to values"),
        (CODE, {"factors": {"labels": labels(100)}}, "the name 'labels' is taken"),
        (CODE, {"factors": {"a": torch.full((100,), torch.nan)}}, "NaN or infinite in row 0"),
        (CODE, {"inputs": normal(99)}, "inputs: .* is wanted"),
        (CODE, {"inputs": torch.full((100, 2), torch.nan)}, "inputs: NaN or infinite in row 0"),
        (CODE, {"reconstruction": CODE}, "compared with the inputs; give inputs"),
        (CODE, {"inputs": CODE, "reconstruction": CODE[:, :2]}, "2 features a row, the inputs have 4"),
        (CODE, {"inputs": CODE, "reconstruction": CODE[:9]}, "reconstruction: .* is wanted"),
        (CODE, {"inputs": CODE, "training_inputs": CODE[:, :2]}, "training_inputs: 2 features"),
        (CODE, {"repeat": CODE[:, :2]}, "repeat: the shape of the activations is wanted"),
        (CODE, {"normalised": CODE[:9]}, "normalised: the shape of the activations is wanted"),
        (CODE, {"scale": [1.0, 2.0]}, "scale: one value a unit is wanted"),
        (CODE, {"ablation": [1.0, 2.0]}, "ablation: one value a unit is wanted"),
        (CODE, {"blocks": [1, 2]}, "blocks: one number a row is wanted"),
        (CODE, {"target": "rho"}, "target: a number"),
        (CODE, {"target": float("nan")}, "target: a finite number"),
        (CODE, {"target": True}, "target: a number"),
        (CODE, {"target": 10**400}, "target: a number"),
        (CODE, {"target": torch.ones(4)}, "target: a number"),
        (CODE, {"activation": ["relu"]}, "activation: expected a name, got list"),
        (CODE, {"thresholds": {"rare_frequency": 0.1}}, "a harness.Thresholds is wanted, dict was given"),
        (CODE[None], {"members": "no"}, "members: True or False is wanted, 'no' was given"),
        (CODE, {"information": "no"}, "information: True or False is wanted"),
        (CODE, {"factors": {1: CODE[:, 0], "1": CODE[:, 1]}}, "two of them are called '1'"),
        (CODE, {"inputs": torch.zeros(100, 0)}, "inputs: no rows or no features"),
        (CODE, {"inputs": CODE, "training_inputs": CODE[:0]}, "training_inputs: no rows or no features"),
        (CODE, {"scale": [-1.0, 1, 1, 1]}, "scale: sizes of sums are wanted"),
        (CODE, {"scale": [torch.nan, 1, 1, 1]}, "scale: sizes of sums are wanted"),
        (CODE, {"blocks": [float("nan")] * 100}, "blocks: NaN or infinite names no block"),
        (CODE.to("meta"), {}, "a meta tensor, without values"),
        (CODE.to(torch.float8_e4m3fn), {}, "expected real numbers, got torch.float8_e4m3fn"),
        ([row.clone().requires_grad_() for row in CODE], {}, "got a list that numpy cannot convert"),
        (np.ma.masked_array(CODE.numpy(), CODE.numpy() > 1), {}, "got a masked array"),
        (scipy.sparse.csr_matrix(CODE.numpy()), {}, r"got an array of object \(from a csr_matrix\)"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), {}, r"got an array of .* \(from a DataFrame\)"),
        (None, {}, r"got an array of object \(from a NoneType\)"),
        (CODE, {"activation": "ReLU"}, "did you mean 'relu'"),
        (CODE, {"repeat": CODE[None]}, "^repeat: rank 3 has two readings"),
        (CODE, {"labels": ["left", "right"] * 50}, r"pandas.factorize\(words\)"),
        (CODE, {"labels": labels(100) > 1}, "0 and 1 as integers are classes"),
        (CODE, {"factors": pd.DataFrame({"a": range(100)})}, r"dict\(frame.items\(\)\)"),
    ],
)
def test_bad_input_says_what_is_wanted(activations: object, more: dict[str, object], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        diagnose(activations, **more)


@pytest.mark.parametrize(
    "kind", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.uint8, np.int64, ">f4"]
)
def test_every_kind_of_real_number_is_read(kind: object) -> None:
    code = (4 * CODE.numpy()).astype(kind)
    code.setflags(write=False)
    assert diagnose(code).verdict == "healthy"
    assert diagnose(code[::-1]).verdict == "healthy"


def test_a_list_a_gradient_and_a_transposed_tensor_are_read() -> None:
    assert diagnose(CODE.tolist()).verdict == "healthy"
    assert diagnose(CODE.clone().requires_grad_()).verdict == "healthy"
    assert diagnose(CODE.T.contiguous().T).verdict == "healthy"


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_tensors_frames_and_lists_of_rows_are_read_as_the_matrix_they_are() -> None:
    expected = str(diagnose(CODE))
    for same in (CODE.to_sparse(), CODE.to_sparse_csr(), pd.DataFrame(CODE.numpy()), list(CODE)):
        assert str(diagnose(same)) == expected


MATRICES = arrays.arrays(
    some.sampled_from([np.float16, np.float32, np.float64, np.int16]),
    some.tuples(some.integers(1, 12), some.integers(1, 4)),
    elements=some.one_of(some.sampled_from([0, 1]), some.integers(-100, 100)),
)
NAMES = some.sampled_from(["relu", "leaky_relu", "softplus", "sigmoid", "tanh", "none"])


@settings(max_examples=80)
@given(MATRICES, NAMES)
def test_no_matrix_of_small_numbers_crashes(matrix: np.ndarray, activation: str) -> None:
    found = diagnose(matrix, activation, repeat=matrix[::-1])
    assert len(found.units) == matrix.shape[1]
    str(found)


@settings(max_examples=80)
@given(arrays.arrays(np.float64, some.tuples(some.integers(1, 9), some.integers(1, 3)), elements=some.floats()), NAMES)
def test_no_matrix_of_any_floats_crashes(matrix: np.ndarray, activation: str) -> None:
    found = diagnose(matrix, activation)
    for unit, column in zip(found.units, matrix.T, strict=True):
        assert (unit.verdict == "invalid") is (not np.isfinite(column).all())
    found.to_dict()
