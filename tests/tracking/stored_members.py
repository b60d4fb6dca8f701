"""Members as training leaves them, and what the store has of them."""

import math
import sqlite3

from harness.results import MemberRecord


def record(index=0, **changes):
    steps = [0.0, 10.0, 20.0]
    values = {
        "key": f"k{index}",
        "variant": "as_posted bn=on",
        "levels": {"penalty": "as_posted", "beta": 0.001},
        "seed": index,
        "verdict": "healthy",
        "units": 2,
        "live_units": 2,
        "losses": {"total": 0.5},
        "history": {
            "step": steps,
            "epoch": [0.0, 1.0, 2.0],
            "loss/total": [3.0, 2.0, 1.0],
            "r2": [0.0, 0.1, 0.2],
            "live_units": [2.0, 2.0, 2.0],
        },
        "unit_history": {"activation_frequency": [[0.5, 0.6]] * 3, "mutual_information": [[math.nan, 0.1]] * 3},
        "seconds": 0.0,
        "logged_at": 1_700_000_000_000,
    }
    return MemberRecord(**{**values, **changes})


def rows(root, query):
    with sqlite3.connect(root / "mlruns" / "mlflow.db") as connection:
        return connection.execute(query).fetchall()
