"""Plans of experiments: stacks, cost, and the smallest detectable effect."""
