-- Run once by the Postgres image: Prefect has its own database already.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
CREATE DATABASE ledger;
