"""From a verdict to a served champion: bundle, MLflow, aliases. The only place that imports mlflow."""
