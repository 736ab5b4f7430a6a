-- Run once by the Postgres image: Prefect has its own database already.
CREATE DATABASE mlflow;
CREATE DATABASE ledger;
