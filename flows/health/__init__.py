"""What `tunegate doctor` checks, one small function each; `flows/commands/doctor.py` prints what they find."""
