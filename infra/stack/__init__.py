"""The whole stack on this machine without containers: Postgres, Prefect, MLflow with logins, a worker, the endpoint."""
