"""The reference of the laws: a plain PyTorch loop that knows nothing of stacks."""

import torch

from harness.remedies.layout import build_model
from harness.training.rng import RandomStream, generator
from harness.training.sequential import LiveRandom

TRAIN = {"epochs": 2, "batch_size": 70, "learning_rate": 2e-3}


def plain_loop(case, seed, inputs, steps):
    """One model, torch's own Adam, and the member's documented sources of randomness."""
    model = build_model(case, seed, inputs[:4]).to(inputs.dtype)
    numbers = case.training()
    optimiser = torch.optim.Adam(model.parameters(), lr=numbers["learning_rate"])
    draws = RandomStream([seed], "training", inputs.dtype, inputs.device)
    totals, done = [], 0
    for epoch in range(1, numbers["epochs"] + 1):
        order = torch.randperm(len(inputs), generator=generator(seed, f"batches {epoch}")).to(inputs.device)
        for rows in order.split(numbers["batch_size"]):
            if done == steps:
                return model, totals
            with LiveRandom(draws):
                terms = case.losses(model, inputs[rows], **{k: case.numbers[k] for k in case.loss_keywords()})
            penalties = [value for name, value in terms.items() if name != "reconstruction"]
            total = terms["reconstruction"] + (case.numbers["beta"] * sum(penalties) if penalties else 0)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            totals.append(float(total))
            done += 1
    return model, totals


def last(snapshots):
    """The snapshot after the last step."""
    for snapshot in snapshots:
        final = snapshot
    return final
