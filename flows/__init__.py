"""Order, retries and reuse: which task runs when, and what is already true. Imports tasks and schemas.

The stages are at the top (`pipeline.py` first); everything else has a room, named by what it is about. `lint-imports`
checks the order in which they may import each other.
"""

from schemas.registries import add_on_load

# What pipelines.yaml may say is known to registries of `tasks`, which `schemas` must not import.
add_on_load(
    "tasks.sources.registry", "tasks.curate.steps", "tasks.assess.metrics", "tasks.assess.checks",
    "tasks.plugins:load_kinds",
)  # fmt: skip
