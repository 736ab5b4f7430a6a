"""The kinds of metrics, registered by their import. A new one is a file like `macro_f1.py` and a line here."""

import tasks.assess.macro_f1
import tasks.assess.reply
import tasks.assess.text_metrics
import tasks.assess.user_metrics  # noqa: F401  registers them
