"""A training step as a graph of operations: captured, simplified, and run."""
