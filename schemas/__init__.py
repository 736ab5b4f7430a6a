"""What things look like: specs, table contracts, references and errors. Imports nothing of ours."""
