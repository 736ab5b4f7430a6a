"""A run's report as an HTML page, a Markdown comment and a JUnit file, from one `schemas.report.RunReport`."""
