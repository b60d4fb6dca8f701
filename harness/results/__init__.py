"""What members left behind: the truth of which MLflow and the report are projections."""
