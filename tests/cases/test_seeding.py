"""A seed of ours is torch's."""

import torch

from harness.case import set_seed


def test_it_draws_what_torch_draws_from_the_same_seed():
    set_seed(7)
    ours = torch.rand(5), torch.randperm(9)
    torch.manual_seed(7)
    assert torch.equal(ours[0], torch.rand(5))
    assert torch.equal(ours[1], torch.randperm(9))
