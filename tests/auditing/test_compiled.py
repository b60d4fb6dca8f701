"""A compiled model, layer or loss is audited as the plain one; nothing is compiled meanwhile, and it compiles afterwards."""

import pytest
import torch
from healthy_models import Autoencoder, case, rows, squared_error

from harness.auditing import audit


class HalfDead(Autoencoder):
    """Two of four units of a ReLU code never fire."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.enc.bias[:2] = -50.0

    def encode(self, x):
        return torch.relu(self.enc(torch.relu(self.body(x))))


class Skip(Autoencoder):
    def forward(self, x):
        z, made = super().forward(x)
        return z, made + 0.5 * x


def penalized(model, x):
    z, made = model(x)
    return {"reconstruction": (made - x).pow(2).mean(), "count": (z > 0).double().mean()}


class Compiler:
    """A backend that counts what it compiles, and runs it as it is."""

    def __init__(self):
        self.compiled = 0

    def __call__(self, graph, inputs):
        self.compiled += 1
        return graph.forward


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield Compiler()
    torch._dynamo.reset()


def whole(make, losses, compiler):
    return case(lambda: torch.compile(make(), backend=compiler), losses, bottleneck="_orig_mod.enc")


def layer(make, losses, compiler):
    def build():
        model = make()
        model.body.compile(backend=compiler)
        return model

    return case(build, losses)


def loss(make, losses, compiler):
    return case(make, torch.compile(losses, backend=compiler))


def findings(model_case):
    result = audit(model_case, seeds=1, during_training=False)
    texts = [str(finding.evidence).replace("_orig_mod.", "") for finding in result.findings]
    return list(zip(result.rules, texts, strict=True)), [finding.rule for finding in result.undecided]


@pytest.mark.parametrize("compiled", [whole, layer, loss])
@pytest.mark.parametrize(
    ("make", "losses", "rule"),
    [
        (Autoencoder, squared_error, None),
        (HalfDead, squared_error, "dead_at_birth"),
        (Skip, squared_error, "bypass"),
        (Autoencoder, penalized, "no_gradient"),
    ],
)
def test_a_compiled_model_is_audited_as_the_plain_one(make, losses, rule, compiled, compiler):
    plain, undecided = findings(case(make, losses))
    assert [name for name, _ in plain] == ([] if rule is None else [rule])
    assert findings(compiled(make, losses, compiler)) == (plain, undecided)
    assert compiler.compiled == 0


def test_a_compiled_model_compiles_after_the_audit(compiler):
    model = torch.compile(Autoencoder(), backend=compiler)
    audit(case(lambda: model, bottleneck="_orig_mod.enc"), seeds=1, during_training=False)
    assert compiler.compiled == 0
    made = model(rows())[1]
    assert compiler.compiled > 0
    torch.testing.assert_close(made, model._orig_mod(rows())[1])
