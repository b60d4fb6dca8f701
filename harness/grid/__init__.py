"""Experiments read from YAML files, with their variants, members and stacks. Nothing here loads torch."""

from harness.factors import Level
from harness.grid.experiment import Experiment
from harness.grid.factorial import Member, Variant
from harness.grid.loader import load_experiment
from harness.grid.stack_plan import StackPlan, stacks

__all__ = ["Experiment", "Level", "Member", "StackPlan", "Variant", "load_experiment", "stacks"]
