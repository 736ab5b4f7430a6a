"""The checks of the gate, registered by their import. A new one is a file (see `check.py`) and a line here."""

import tasks.assess.measured_checks  # noqa: F401  registers them
