"""Order, retries and reuse: which task runs when, and what is already true. Imports tasks and schemas."""

from schemas.variants import add_on_load

# What pipelines.yaml may say is known to registries of `tasks`, which `schemas` must not import.
add_on_load("tasks.sources.registry")
