"""Execution: stacks become records, in this process or in worker processes."""
