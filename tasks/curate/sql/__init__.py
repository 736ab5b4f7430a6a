"""SQL that a person writes in pipelines.yaml: checked before it runs, generated anew from the checked tree."""
