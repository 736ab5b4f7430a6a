"""The champion: approvals, and MLflow, which follows the ledger. The one package that talks to MLflow."""
