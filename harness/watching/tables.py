"""Tables of what a monitor has recorded."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.watching.layer_window import LayerWindow

if TYPE_CHECKING:
    from pandas import DataFrame


def history_frame(windows: Iterable[LayerWindow]) -> "DataFrame":
    """Return one row per layer, step and unit."""
    import pandas

    frames = [
        pandas.DataFrame(
            {
                "layer": window.name,
                "step": record["step"],
                "unit": range(len(record["mean"])),
                **{name: record[name].numpy() for name in MEASURES},
                **{f"gradient/{term}": norm.cpu().numpy() for term, norm in record["gradients"].items()},
            }
        )
        for window in windows
        for record in window.history
    ]
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=COLUMNS)


def unit_frame(windows: Iterable[LayerWindow]) -> "DataFrame":
    """Return one row per layer and unit, over the whole training."""
    import pandas

    frames = []
    for window in windows:
        record = window.record
        if record is None:
            continue
        columns: dict[str, Any] = {
            "layer": window.name,
            "unit": range(record.units),
            "rows": record.rows,
            "activation_frequency": record.frequency(window.activation).numpy(),
            "mean": record.mean.numpy(),
            "sd": record.standard_deviation.numpy(),
            "last_active": record.active_step.numpy(),
            "dead": record.dead.numpy(),
        }
        frame = pandas.DataFrame(columns)
        for name, steps in (("death", record.death), ("revival", record.revival)):
            frame[name] = pandas.array(steps.numpy(), dtype="Int64")
            frame.loc[frame[name] < 0, name] = pandas.NA
        frame["revivals"] = record.revivals.numpy()
        frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=UNIT_COLUMNS)


MEASURES = ("activation_frequency", "mean", "sd", "dead")
COLUMNS = ("layer", "step", "unit", *MEASURES)
UNIT_COLUMNS = (
    *("layer", "unit", "rows", "activation_frequency", "mean", "sd", "last_active", "dead", "death", "revival"),
    "revivals",
)
