"""Who is champion: approvals and recovery, and MLflow, which follows the ledger. The one room that speaks to MLflow."""
