"""What people see of a command's result, where that takes more than a few lines. Knows no arguments and no ledger."""
