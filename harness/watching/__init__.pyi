from .finished import diagnose_model as diagnose_model
from .inventory import LayerInfo as LayerInfo
from .inventory import layers as layers
from .monitor import Monitor as Monitor
from .monitor import watch as watch
