"""What ran, what is reused, what is true: keys, store, ledger, lock, plan. Knows nothing of Prefect."""
