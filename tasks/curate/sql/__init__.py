"""SQL that a user writes in pipelines.yaml: checked before it runs, and rewritten from the checked syntax tree."""
