"""`tunegate init`: propose a first pipelines.yaml from a file of tickets."""
