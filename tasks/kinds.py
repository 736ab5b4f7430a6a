"""All that pipelines.yaml may name besides the keys of schemas/: imported when the first file is read, by flows."""

import tasks.assess.checks
import tasks.assess.metrics
import tasks.curate.steps  # noqa: F401  all of them, for what they register
