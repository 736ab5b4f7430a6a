"""What a pipeline's registry says, by ledger and MLflow: address, owner, champion, and the feedback on its models."""
