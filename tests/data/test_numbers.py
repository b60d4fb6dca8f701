"""In which numbers a model is given its rows: its own precision, or whole numbers where it looks things up."""

import hashlib
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data import Rows, split_of
from harness.data.split import hold_out
from harness.errors import HarnessError

EXACT = torch.rand(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PIXELS = torch.randint(0, 256, (50, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
TOKENS = torch.randint(0, 300, (50, 6), generator=torch.Generator().manual_seed(2))


def linear(dtype=torch.float32):
    return nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6)).to(dtype)


def embedding(dtype=torch.float32):
    return nn.Sequential(nn.Embedding(300, 2), nn.Flatten(), nn.Linear(12, 6)).to(dtype)


class LooksUp(nn.Module):
    """It takes numbers of any kind for tokens."""

    def __init__(self, dtype):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(6 * 300, 6)).to(dtype)

    def forward(self, tokens):
        return self.layers(F.one_hot(tokens.long(), 300).to(self.layers[1].weight.dtype))


class Constant(nn.Module):
    """Parameters in two precisions, of which rows in the second alone go through."""

    def __init__(self):
        super().__init__()
        self.size = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.layers = linear()

    def forward(self, rows):
        return self.layers(rows) * self.size


def losses(model, batch):
    return {"reconstruction": (model(batch) - batch).square().mean()}


def counted(model, batch):
    return {"reconstruction": F.cross_entropy(model(batch)[:, :2], batch[:, 0] % 2)}


def case(model, data, losses=losses, **others):
    return Case(model, lambda: data, losses, "0", name="mine", **others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [EXACT, EXACT.numpy(), EXACT.tolist(), Rows(EXACT), (EXACT, TOKENS[:, 0] % 3)])
def test_rows_come_in_the_model_s_own_precision_with_all_digits_that_it_holds(dtype, given):
    found, kept = split_of(case(partial(linear, dtype), given)), hold_out(Rows(EXACT))
    for rows, wanted in zip((found.train, found.evaluation), kept, strict=True):
        torch.testing.assert_close(rows.inputs, wanted.inputs.to(dtype), rtol=0, atol=0)


def test_a_file_is_read_in_the_model_s_own_precision_too(tmp_path):
    torch.save(EXACT, tmp_path / "rows.pt")
    found = split_of(case(partial(linear, torch.float64), EXACT + 1), str(tmp_path / "rows.pt"))
    assert torch.equal(found.train.inputs, hold_out(Rows(EXACT))[0].inputs)


@pytest.mark.parametrize("given", [EXACT, EXACT.float(), PIXELS, TOKENS])
def test_the_fingerprint_of_float32_rows_is_that_of_their_float32_bytes(given):
    digest = hashlib.sha256()
    for rows in hold_out(Rows(given.float())):
        digest.update(f"inputs torch.float32 {list(rows.inputs.shape)}".encode())
        digest.update(rows.inputs.numpy().tobytes())
    assert split_of(case(linear, given)).fingerprint == digest.hexdigest()


def test_a_fingerprint_sees_a_bit_that_only_the_precision_of_the_model_holds():
    near = EXACT.clone()
    near[3, 3] = torch.nextafter(near[3, 3], torch.tensor(2.0, dtype=torch.float64))
    prints = {
        split_of(case(partial(linear, dtype), rows)).fingerprint
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
        for rows in (EXACT, near)
    }
    assert len(prints) == 2 + 1 + 1


@pytest.mark.parametrize(
    ("model", "given", "loss", "wanted"),
    [
        (linear, PIXELS, losses, torch.float32),
        (partial(linear, torch.bfloat16), PIXELS, losses, torch.bfloat16),
        (linear, PIXELS > 100, losses, torch.float32),
        (embedding, TOKENS, counted, torch.int64),
        (partial(embedding, torch.float64), TOKENS.int(), counted, torch.int64),
        (embedding, TOKENS + 1000, counted, torch.int64),  # past the end of the table, which is told when it is run
        (partial(LooksUp, torch.float32), TOKENS, losses, torch.float32),
        (partial(LooksUp, torch.float32), TOKENS, counted, torch.int64),
        (partial(LooksUp, torch.bfloat16), TOKENS, losses, torch.int64),  # 299 is no bfloat16
        (partial(LooksUp, torch.bfloat16), TOKENS % 200, losses, torch.bfloat16),
        (Constant, EXACT.float(), losses, torch.float32),
        (Constant, PIXELS, losses, torch.float32),
    ],
    ids=[
        "pixels", "16-bit pixels", "flags", "tokens", "tokens in float64", "tokens out of range", "either",
        "the loss wants tokens", "16 bits would round", "16 bits hold them", "mixed", "mixed pixels",
    ],
)  # fmt: skip
def test_integers_become_floats_unless_the_model_refuses_them_so_or_they_would_be_rounded(model, given, loss, wanted):
    found = split_of(case(model, given, loss)).train.inputs
    assert found.dtype == wanted
    assert torch.equal(found.double(), hold_out(Rows(given))[0].inputs.double())


@pytest.mark.parametrize(
    ("model", "given", "others", "sentence"),
    [
        (partial(linear, torch.float16), EXACT * 1e6, {}, "too large for float16, the model's precision: scale them"),
        (linear, EXACT * 1e300, {}, "too large for float32, the model's precision: scale them"),
        (partial(linear, torch.bfloat16), 1 + EXACT * 1e-4, {}, "all 50 rows are equal in bfloat16, the model's"),
        (embedding, TOKENS, {"losses": counted, "evaluation": lambda: EXACT}, "evaluation: expected integers"),
    ],
)
def test_what_the_model_s_numbers_cannot_hold_is_refused(model, given, others, sentence):
    with pytest.raises(HarnessError, match=sentence):
        split_of(case(model, given, **others))


def test_looking_at_what_the_model_takes_leaves_it_and_torch_as_they_were():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 6)).train()
    before, state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    split_of(case(lambda: model, PIXELS))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
