from .finished import diagnose_model as diagnose_model
from .judged_layers import LayerInfo as LayerInfo
from .judged_layers import layers as layers
from .monitor import Monitor as Monitor
from .monitor import watch as watch
