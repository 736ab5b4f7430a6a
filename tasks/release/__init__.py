"""From a verdict to a served champion: bundle, MLflow, aliases, endpoint. The only folder that imports mlflow."""
