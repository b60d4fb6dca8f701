from .experiment import Experiment as Experiment
from .factorial import Member as Member
from .factorial import Variant as Variant
from .loader import load_experiment as load_experiment
from .stack_plan import StackPlan as StackPlan
from .stack_plan import stacks as stacks
