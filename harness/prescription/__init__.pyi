from .prescription import Prescription as Prescription
from .prescription import Remedy as Remedy
from .procedure import prescribe as prescribe
