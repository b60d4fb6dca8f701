"""Training: a stack of members becomes snapshots."""

from harness.training.devices import check_device, device_of, gpu_is_lost, gpu_name
from harness.training.train import Snapshot, train
from harness.training.vmap_support import VmapSupport, check_vmap_support

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
