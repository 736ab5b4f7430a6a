"""The formats of `tunegate model export`, registered by their import. A new one is a file like `export_adapter.py` and
a line here.
"""

import tasks.release.export_adapter
import tasks.release.export_weights
import tasks.release.openai_file  # noqa: F401  registers them
