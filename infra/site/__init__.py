"""The site of `make docs`: pages that are written from the program itself, and mkdocs' settings."""
