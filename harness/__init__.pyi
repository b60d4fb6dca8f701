from . import effects as effects
from . import penalties as penalties
from . import report as report
from .auditing import audit as audit
from .case import Case as Case
from .case import load_case as load_case
from .data.rows import Rows as Rows
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import Finding as Finding
from .diagnosis import Thresholds as Thresholds
from .diagnosis import diagnose as diagnose
from .diagnosis import diagnose_members as diagnose_members
from .errors import HarnessError as HarnessError
from .experiment import Results as Results
from .experiment import compare as compare
from .experiment import plan as plan
from .experiment import run as run
from .experiment import sync as sync
from .measures import dependence as dependence
from .measures import mutual_information as mutual_information
from .prescription import prescribe as prescribe
from .rulebook import explain as explain
from .watching import diagnose_model as diagnose_model
from .watching import layers as layers
from .watching import watch as watch

__version__: str
