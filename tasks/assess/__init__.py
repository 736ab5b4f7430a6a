"""Numbers about predictions: scores, baselines, comparisons and the gate. Knows no torch and no MLflow."""
