"""Training: a stack of members becomes snapshots."""

from harness.training.devices import check_device, device_of, gpu_is_lost, gpu_name
from harness.training.stackable import VmapSupport, check_vmap_support
from harness.training.train import Snapshot, train

__all__ = [
    "Snapshot",
    "VmapSupport",
    "check_device",
    "check_vmap_support",
    "device_of",
    "gpu_is_lost",
    "gpu_name",
    "train",
]
