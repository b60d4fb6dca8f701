"""Functions around a module's forward pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.watching.forward_calls import ForwardCalls, StepCalls


class Nested(nn.Module):
    """Halves a batch of several rows by calling itself."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(3, 2)

    def forward(self, rows: Tensor) -> Tensor:
        if len(rows) > 4:
            return torch.cat([self(rows[:4]), self(rows[4:])])
        return torch.relu(self.code(rows))


class Refusal(Exception):
    """Raised by a model in a test."""


def test_only_the_chosen_passes_are_followed_and_all_of_them_are_asked_for() -> None:
    layer, asked, outputs = nn.Identity(), [], []

    def choose(args: tuple[int, ...], kwargs: dict[str, int]) -> bool:
        asked.append(args[0])
        return args[0] % 2 == 0

    calls = StepCalls(layer, choose, outputs.append, lambda: outputs.append(None))
    assert [layer(number) for number in range(5)] == list(range(5))
    assert (asked, outputs) == ([0, 1, 2, 3, 4], [0, 2, 4])
    calls.remove()
    layer(6)
    assert (asked, outputs, "forward" in vars(layer)) == ([0, 1, 2, 3, 4], [0, 2, 4], False)


@pytest.mark.parametrize("chosen", [True, False])
def test_a_pass_that_raises_leaves_the_next_one_whole(chosen: bool) -> None:
    class Refusing(nn.Module):
        def forward(self, number: int) -> int:
            if number == 0:
                raise Refusal
            return number

    model, events = Refusing(), []
    calls = StepCalls(model, lambda args, kwargs: chosen, events.append, lambda: events.append("failed"))
    with pytest.raises(Refusal):
        model(0)
    assert model(1) == 1
    assert events == (["failed", 1] if chosen else [])
    calls.remove()


def _called(*values: object) -> bool:
    raise AssertionError("called after it was removed")


@pytest.mark.parametrize(
    "put", [lambda layer: ForwardCalls(layer, after=_called), lambda layer: StepCalls(layer, *[_called] * 3)]
)
def test_a_wrapper_of_another_library_calls_through_after_removal(put: Callable[[nn.Module], ForwardCalls]) -> None:
    layer = nn.Identity()
    calls = put(layer)
    inner = layer.forward
    layer.forward = lambda value: inner(value)  # another library
    calls.remove()
    assert layer(3) == 3


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_model_that_calls_itself_makes_one_step_of_each_call_from_outside(every: int) -> None:
    torch.manual_seed(0)
    model = Nested()
    rows = torch.randn(12, 3)
    with harness.watch(model, "code", every, callback=lambda line: None) as monitor:
        for _ in range(7):
            model(rows)
    expected = (model.code(rows).detach() > 0).float().mean(0)
    history = monitor.history()
    assert monitor.step == 7
    assert sorted(set(history.step)) == list(range(1, 8, every))
    for unit in range(2):
        shares = history[history.unit == unit].activation_frequency
        assert shares.to_numpy()[1:] == pytest.approx(expected[unit].item())
