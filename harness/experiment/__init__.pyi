from .driver import RunCallbacks as RunCallbacks
from .driver import RunSummary as RunSummary
from .driver import run as run
from .driver import run_experiment as run_experiment
from .driver import sync as sync
from .driver import synchronize as synchronize
