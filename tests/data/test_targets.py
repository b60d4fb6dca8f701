"""Losses that name `target`, `step` or `progress`: in stacks, alone, in records; equal to a plain torch loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import r2_score
from torch import nn
from torch.utils.data import TensorDataset

import harness
from harness import Case
from harness.data import split_of
from harness.errors import HarnessError
from harness.execution.member_record import judge_members
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.loss_terms import loss_terms
from harness.models import build_model
from harness.remedies import apply_remedies
from harness.training import check_vmap_support, train
from harness.training.batches import batch_orders

ROWS, FEATURES, UNITS = 80, 6, 3
INPUTS = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(1)).double()
VALUES = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(2)).double()
CLASSES = (VALUES[:, 0] > 0).long() + (VALUES[:, 1] > 0).long()
TRAIN = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}


class Regressor(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        self.encoder, self.head = nn.Linear(FEATURES, UNITS).double(), nn.Linear(UNITS, outputs).double()

    def forward(self, rows):
        return self.head(F.relu(self.encoder(rows)))


def regression(model, batch, target):
    return {"reconstruction": F.mse_loss(model(batch), target), "l1": F.relu(model.encoder(batch)).mean()}


def classification(model, batch, target, beta):
    penalty = beta * F.relu(model.encoder(batch)).mean()
    return {"reconstruction": F.cross_entropy(model(batch), target), "l1": penalty}


def annealed(model, batch, target, progress, step, beta):
    weight = beta * progress + 0.001 * step
    return {"reconstruction": F.mse_loss(model(batch), target), "l1": weight * F.relu(model.encoder(batch)).mean()}


def stepwise(model, batch, target, progress):
    weight = 1.0 if progress < 0.5 else 0.25
    return {"reconstruction": F.mse_loss(model(batch), target), "l1": weight * F.relu(model.encoder(batch)).mean()}


CASES = {
    "floats": Case(Regressor, lambda: (INPUTS, VALUES), regression, "encoder", numbers={"beta": 0.1}, train=TRAIN),
    "classes": Case(
        lambda: Regressor(3), lambda: (INPUTS, CLASSES), classification, "encoder", numbers={"beta": 0.1}, train=TRAIN
    ),
    "annealed": Case(Regressor, lambda: (INPUTS, VALUES), annealed, "encoder", numbers={"beta": 0.1}, train=TRAIN),
    "stepwise": Case(Regressor, lambda: (INPUTS, VALUES), stepwise, "encoder", numbers={"beta": 0.1}, train=TRAIN),
}


def plain_loop(case, split, seed):
    """Totals of a plain torch loop, and its final weights."""
    inputs, targets, model = split.train.inputs, split.train.targets, build_model(case, seed, split.train.inputs)
    optimizer, numbers = torch.optim.Adam(model.parameters(), lr=0.01), {"beta": 0.1}
    steps, done = TRAIN["epochs"] * 4, 0
    for epoch in range(1, TRAIN["epochs"] + 1):
        order = batch_orders([seed], epoch, len(inputs))[0]
        for rows in order.split(16):
            optimizer.zero_grad()
            values = {**numbers, "target": targets[rows], "step": done, "progress": done / steps}
            terms = case.losses(model, inputs[rows], **case.loss_arguments(values))
            case.total(terms, numbers).backward()
            optimizer.step()
            done += 1
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stacked", [True, False])
def test_training_equals_a_plain_loop_that_passes_targets_step_and_progress(name, stacked):
    case, split = CASES[name], split_of(CASES[name])
    assert len(split.train) == 64
    support = check_vmap_support(case, split.train.inputs, targets=split.train.targets)
    assert support.rule is not None, support.reason
    support = support if stacked else replace(support, rule=None)
    *_, last = train([case, case], [3, 4], split, support)
    for member, seed in enumerate((3, 4)):
        expected = plain_loop(case, split, seed)
        for parameter, value in last.engine.state_of(member).items():
            assert torch.allclose(value, expected[parameter], rtol=1e-9, atol=1e-11), parameter
    assert last.progress == 1.0


def test_targets_come_with_their_rows_whatever_form_the_data_have():
    case = CASES["floats"]
    forms = (
        (INPUTS.numpy(), VALUES.numpy()),
        TensorDataset(INPUTS, VALUES),
        harness.Rows(INPUTS, targets=VALUES),
    )
    expected = split_of(case)
    assert torch.equal(expected.train.targets[0], VALUES[(expected.train.inputs[0] == INPUTS).all(1)][0])
    for form in forms:
        split = split_of(replace(case, data=lambda form=form: form))
        assert torch.equal(split.train.targets, expected.train.targets)
        assert torch.equal(split.evaluation.targets, expected.evaluation.targets)
        assert split.train.labels is None
        assert split.fingerprint == expected.fingerprint


def test_an_autoencoder_s_dataset_gives_its_inputs_as_targets():
    case = replace(CASES["floats"], data=lambda: TensorDataset(INPUTS, INPUTS))
    assert torch.equal(split_of(case).train.targets, split_of(case).train.inputs)


def test_labels_stay_references_where_the_loss_names_no_target():
    def losses(model, batch):
        return {"reconstruction": model(batch).pow(2).mean()}

    split = split_of(replace(CASES["classes"], losses=losses))
    assert split.train.targets is None
    assert split.train.labels is not None


def test_other_targets_change_the_fingerprint():
    case = CASES["floats"]
    assert split_of(case).fingerprint != split_of(replace(case, data=lambda: (INPUTS, VALUES + 1))).fingerprint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: INPUTS, r"case case: data: expected targets, because losses names `target`, got inputs alone"),
        (lambda: (INPUTS, VALUES[:9]), r"targets: expected one per row, got shape \[9, 2\] for 80 rows"),
        (lambda: (INPUTS, VALUES * torch.nan), "targets: NaN or infinite values"),
        (lambda: (INPUTS, VALUES * 1j), "targets: expected real numbers, got torch.complex128"),
        (lambda: (INPUTS, VALUES, VALUES), r"expected \(inputs, targets\), got a tuple of 3"),
    ],
)
def test_data_without_usable_targets_are_refused(data, message):
    with pytest.raises(HarnessError, match=message):
        split_of(replace(CASES["floats"], data=data))


def test_a_loss_with_a_default_target_gets_none_where_the_data_have_none():
    def losses(model, batch, target=None):
        assert target is None
        return {"reconstruction": model(batch).pow(2).mean()}

    case = replace(CASES["floats"], data=lambda: INPUTS, losses=losses)
    split = split_of(case)
    assert check_vmap_support(case, split.train.inputs).rule is not None
    *_, last = train([case], [0], split)
    assert torch.isfinite(last.losses["total"]).all()


def test_a_number_of_the_case_keeps_its_name():
    def losses(model, batch, step):
        return {"reconstruction": model(batch).pow(2).mean() * step}

    case = replace(CASES["floats"], data=lambda: INPUTS, losses=losses, numbers={"step": 2.0})
    assert case.supplied_keywords() == ()
    split = split_of(case)
    plain = replace(case, numbers={"step": 1.0})
    first, first_plain = (next(train([each], [0], split)).losses["total"] for each in (case, plain))
    assert float(first) == pytest.approx(2 * float(first_plain))


@pytest.mark.parametrize("level", ["as_posted", "l1", "kl_sigmoid_of_relu"])
def test_remedies_pass_targets_on(level):
    case = replace(CASES["floats"], name="pairs")
    split = split_of(case)
    treated = apply_remedies(case, {"penalty": level, "activation": "leaky_relu"}, split)
    support = check_vmap_support(treated, split.train.inputs, targets=split.train.targets)
    assert support.rule is not None, support.reason
    *_, stacked = train([treated] * 2, [0, 1], split, support)
    *_, alone = train([treated] * 2, [0, 1], split, replace(support, rule=None))
    for name, value in stacked.engine.state_of(1).items():
        assert torch.allclose(value, alone.engine.state_of(1)[name], rtol=1e-8, atol=1e-10)


def test_a_run_judges_such_a_case_and_its_held_out_losses_are_those_of_the_end():
    seen = []

    def losses(model, batch, target, step, progress):
        if not model.training and len(batch) == 8:
            seen.append((float(step), float(progress)))
        return {"reconstruction": F.mse_loss(model(batch), target), "l1": model.encoder(batch).abs().mean()}

    case = replace(CASES["floats"], losses=losses, train={**TRAIN, "batch_size": 8})
    records = run_stack(StackSpec(case, None, (StackMember("a", "v", {}, 0), StackMember("b", "v", {}, 1))))
    assert [record.status for record in records] == ["ok", "ok"]
    assert (0.0, 0.0) in seen
    assert (24.0, 1.0) in seen
    assert np.isfinite(records[0].losses["reconstruction"])


def test_terms_outside_training_take_the_first_targets():
    case, split = CASES["annealed"], split_of(CASES["annealed"])
    model, rows, targets = build_model(case, 0, INPUTS), split.train.inputs[:5], split.train.targets
    terms = loss_terms(case, model, rows, targets, step=10, progress=0.5)
    expected = annealed(model, rows, targets[:5], 0.5, 10, beta=0.1)
    assert float(terms["l1"]) == float(expected["l1"])
    assert float(terms["reconstruction"]) == float(expected["reconstruction"])
    assert float(loss_terms(case, model, rows, targets)["l1"]) == 0.0


@pytest.mark.parametrize("stacked", [True, False])
def test_an_output_of_the_shape_of_the_rows_is_compared_with_targets_of_that_shape(stacked):
    """R2 of record, history and ablation are those of scikit-learn about the targets, of a plain loop's model."""
    targets = torch.tanh(INPUTS @ torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(5)).double())
    case = Case(
        lambda: Regressor(FEATURES),
        lambda: (INPUTS, targets),
        regression,
        "encoder",
        numbers={"beta": 0.1},
        train=TRAIN,
    )
    split = split_of(case)
    support = check_vmap_support(case, split.train.inputs, targets=split.train.targets)
    *_, last = train([case, case], [3, 4], split, support if stacked else replace(support, rule=None))
    judged = judge_members(last.engine, [case, case], split)
    for seed, diagnosis in zip((3, 4), judged.diagnoses, strict=True):
        model = Regressor(FEATURES)
        model.load_state_dict(plain_loop(case, split, seed))
        held_out, expected = split.evaluation.inputs, split.evaluation.targets.numpy()
        with torch.no_grad():
            made = model(held_out).numpy()
            code = F.relu(model.encoder(held_out))
            without = code.clone()
            without[:, 0] = code[:, 0].mean()
            ablated = model.head(without).numpy()
        r2 = r2_score(expected, made, multioutput="variance_weighted")
        assert diagnosis.output.r2 == pytest.approx(r2, abs=1e-6)
        assert diagnosis.output.pca_r2 == ()
        lost = r2 - r2_score(expected, ablated, multioutput="variance_weighted")
        assert diagnosis.units[0].ablation == pytest.approx(lost, abs=1e-6)


def test_an_autoencoder_given_its_rows_as_targets_keeps_the_level_of_pca():
    rows = harness.Rows(INPUTS, targets=INPUTS.clone())
    assert rows.reference is rows.inputs
    assert harness.Rows(INPUTS, targets=VALUES).reference is not VALUES  # another size: no output of the rows' shape


@pytest.mark.parametrize(
    ("targets", "asked"),
    [(INPUTS.clone(), True), (CLASSES, True), (INPUTS.abs(), False)],
    ids=["rows", "classes", "other"],
)
def test_an_output_range_is_that_of_the_rows_unless_other_targets_are_asked_for(targets, asked):
    """A ReLU on the output cannot give negative rows, and can give their sizes."""

    class Positive(Regressor):
        def forward(self, rows):
            return F.relu(super().forward(rows))

    def losses(model, batch, target):
        expected = target if target.is_floating_point() else batch
        return {"reconstruction": F.mse_loss(model(batch), expected)}

    case = Case(lambda: Positive(FEATURES), lambda: (INPUTS, targets), losses, "encoder", train=TRAIN)
    rules = {finding.rule for finding in harness.audit(case).findings}
    assert ("output_range" in rules) == asked
