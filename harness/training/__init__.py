"""Training: a stack of members becomes snapshots."""

from harness.training.devices import check_device, device_of, gpu_is_lost, gpu_name
from harness.training.stackable import Stackability, stackability
from harness.training.train import Snapshot, train

__all__ = [
    "Snapshot",
    "Stackability",
    "check_device",
    "device_of",
    "gpu_is_lost",
    "gpu_name",
    "stackability",
    "train",
]
