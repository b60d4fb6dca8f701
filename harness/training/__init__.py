"""Training: a stack of members becomes snapshots."""

from harness.training.stackable import Stackability, stackability
from harness.training.train import Snapshot, batch_bounds, train

__all__ = ["Snapshot", "Stackability", "batch_bounds", "stackability", "train"]
