"""Bad input is one clear error each; bad science never is."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays
from synthetic_codes import labels, normal

from harness import HarnessError, diagnose

CODE = torch.relu(normal(100))


@pytest.mark.parametrize(
    ("activations", "options", "message"),
    [
        (CODE[0], {}, r"expected a matrix \[sample, unit\], got the shape"),
        (CODE[None], {}, r"rank 3 is ambiguous.*members=True.*flatten"),
        (CODE, {"members": True}, r"expected \[member, sample, unit\] with members=True"),
        (
            CODE[None, None],
            {},
            r"expected a matrix \[sample, unit\], got .*; `.movedim\(1, -1\).flatten\(0, -2\)` makes rows",
        ),
        (CODE[:0], {}, "expected at least one row, unit and member"),
        (CODE[:, :0], {}, "expected at least one row, unit and member"),
        (CODE > 0, {}, "expected real numbers, got torch.bool"),
        (CODE.to(torch.complex64), {}, "expected real numbers, got torch.complex64"),
        (np.array([["a"]], dtype=object), {}, "expected real numbers, got an array of object"),
        (np.ones((3, 2), dtype=bool), {}, "expected real numbers, got an array of bool"),
        ([[1.0], [1.0, 2.0]], {}, "got rows of different lengths"),
        (CODE, {"activation": "leaky-relu"}, "did you mean 'leaky_relu'"),
        (CODE, {"dtype": "float23"}, "no precision is called 'float23'"),
        (CODE, {"labels": labels(99)}, "expected 100 values, one per row of activations, got 99"),
        (CODE, {"labels": labels(100).float()}, "use labels.long.. for classes"),
        (CODE, {"labels": torch.arange(100)}, "got 100 classes for 100 rows"),
        (CODE, {"labels": torch.zeros(100, 3).long()}, "expected one value per row"),
        (CODE, {"factors": [1, 2]}, "expected a mapping from name to values, got list"),
        (CODE, {"factors": {"labels": labels(100)}}, "the name 'labels' is reserved"),
        (CODE, {"factors": {"a": torch.full((100,), torch.nan)}}, "got NaN or infinity in row 0"),
        (CODE, {"inputs": normal(99)}, r"inputs: expected \[sample, ...\] with the leading shape \[100\]"),
        (
            CODE,
            {"inputs": torch.full((100, 2), torch.nan)},
            "inputs: expected finite values, got NaN or infinity in row 0",
        ),
        (CODE, {"reconstruction": CODE}, "compared with the inputs; give inputs"),
        (
            CODE,
            {"inputs": CODE, "reconstruction": CODE[:, :2]},
            "reconstruction: expected 4 features per row.*got 2; pass .* as output=",
        ),
        (CODE, {"inputs": CODE, "reconstruction": CODE[:9]}, "reconstruction: expected .* with the leading shape"),
        (CODE, {"inputs": CODE, "training_inputs": CODE[:, :2]}, "training_inputs: expected 4 features per row.*got 2"),
        (CODE, {"repeat": CODE[:, :2]}, "repeat: expected the shape of the activations"),
        (CODE, {"normalised": CODE[:9]}, "normalised: expected the shape of the activations"),
        (CODE, {"scale": [1.0, 2.0]}, "scale: expected one value per unit"),
        (CODE, {"ablation": [1.0, 2.0]}, "ablation: expected one value per unit"),
        (CODE, {"blocks": [1, 2]}, "blocks: expected one number per row"),
        (CODE, {"target": "rho"}, "target: expected a number"),
        (CODE, {"target": float("nan")}, "target: expected a finite number"),
        (CODE, {"target": True}, "target: expected a number"),
        (CODE, {"target": 10**400}, "target: expected a number"),
        (CODE, {"target": torch.ones(4)}, "target: expected a number"),
        (CODE, {"activation": ["relu"]}, "activation: expected a name, got list"),
        (CODE, {"thresholds": {"rare_frequency": 0.1}}, "expected a harness.Thresholds, got dict"),
        (CODE[None], {"members": "no"}, "members: expected True or False, got 'no'"),
        (CODE, {"information": "no"}, "information: expected True or False"),
        (CODE, {"factors": {1: CODE[:, 0], "1": CODE[:, 1]}}, "two factors have the name '1'"),
        (CODE, {"inputs": torch.zeros(100, 0)}, "inputs: expected rows and features"),
        (CODE, {"inputs": CODE, "training_inputs": CODE[:0]}, "training_inputs: expected rows and features"),
        (CODE, {"scale": [-1.0, 1, 1, 1]}, "scale: expected sizes of sums"),
        (CODE, {"scale": [torch.nan, 1, 1, 1]}, "scale: expected sizes of sums"),
        (CODE, {"blocks": [float("nan")] * 100}, "blocks: expected finite numbers, got NaN or infinity"),
        (CODE.to("meta"), {}, "a meta tensor, without values"),
        (CODE.to(torch.float8_e4m3fn), {}, "expected real numbers, got torch.float8_e4m3fn"),
        ([row.clone().requires_grad_() for row in CODE], {}, "got a list that numpy cannot convert"),
        (np.ma.masked_array(CODE.numpy(), CODE.numpy() > 1), {}, "got a masked array"),
        (scipy.sparse.csr_matrix(CODE.numpy()), {}, r"got an array of object \(from a csr_matrix\)"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), {}, r"got an array of .* \(from a DataFrame\)"),
        (None, {}, r"got an array of object \(from a NoneType\)"),
        (CODE, {"activation": "ReLU"}, "did you mean 'relu'"),
        (CODE, {"repeat": CODE[None]}, "^repeat: rank 3 is ambiguous"),
        (CODE, {"labels": ["left", "right"] * 50}, r"pandas.factorize\(words\)"),
        (CODE, {"labels": labels(100) > 1}, "0 and 1 as integers are classes"),
        (CODE - 1, {"activation": "relu"}, "expected values of 0 or more after a ReLU, got -1; say activation='none'"),
        (CODE, {"output": CODE[:9]}, "output: expected .* with the leading shape"),
        (CODE, {"posterior": CODE[:9]}, "posterior: expected the shape of the activations"),
        (CODE, {"posterior_kl": CODE - 1}, "posterior_kl: expected divergences of at least 0 nats"),
        (CODE, {"posterior": CODE, "posterior_kl": CODE}, "got both"),
        (CODE, {"expected_output": CODE[:9], "reconstruction": CODE}, "expected_output: expected"),
        (CODE, {"factors": pd.DataFrame({"a": range(100)})}, r"dict\(frame.items\(\)\)"),
    ],
)
def test_bad_input_says_what_is_expected(activations: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        diagnose(activations, **options)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.uint8, np.int64, ">f4"]
)
def test_every_kind_of_real_number_is_read(dtype: object) -> None:
    code = (4 * CODE.numpy()).astype(dtype)
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
NAMES = some.sampled_from(["auto", "leaky_relu", "softplus", "sigmoid", "tanh", "none"])


@settings(max_examples=80)
@given(MATRICES, NAMES)
def test_no_matrix_of_small_numbers_crashes(matrix: np.ndarray, activation: str) -> None:
    diagnosis = diagnose(matrix, activation=activation, repeat=matrix[::-1])
    assert len(diagnosis.units) == matrix.shape[1]
    str(diagnosis)


@settings(max_examples=80)
@given(arrays.arrays(np.float64, some.tuples(some.integers(1, 9), some.integers(1, 3)), elements=some.floats()), NAMES)
def test_no_matrix_of_any_floats_crashes(matrix: np.ndarray, activation: str) -> None:
    diagnosis = diagnose(matrix, activation=activation)
    for unit, column in zip(diagnosis.units, matrix.T, strict=True):
        assert (unit.verdict == "invalid") is (not np.isfinite(column).all())
    diagnosis.to_dict()
