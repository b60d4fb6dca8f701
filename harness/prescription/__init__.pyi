from .prescription import Prescription as Prescription
from .prescription import PrescriptionInterrupted as PrescriptionInterrupted
from .procedure import prescribe as prescribe
from .publication import publish as publish
from .remedy import Remedy as Remedy
