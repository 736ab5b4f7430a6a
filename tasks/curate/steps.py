"""The kinds of curation steps, registered by their import. A new one is a file like `length.py` and a line here.

The order of the lines decides nothing: pipelines.yaml orders the steps, and their settings say where each may come.
"""

import tasks.curate.cap
import tasks.curate.dedup
import tasks.curate.label_check
import tasks.curate.language
import tasks.curate.length
import tasks.curate.mail_step
import tasks.curate.python_step
import tasks.curate.quality
import tasks.curate.redact
import tasks.curate.rules
import tasks.curate.sql_step
import tasks.curate.trigger_scan  # noqa: F401  all of them, for what they register
