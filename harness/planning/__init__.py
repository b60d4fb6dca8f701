"""Plans: what an experiment would run, what it can detect, and what it costs."""
