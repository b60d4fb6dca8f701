from .finished import diagnose_model as diagnose_model
from .monitor import Monitor as Monitor
from .monitor import watch as watch
