"""A run's report as a page, a comment and a JUnit file, all from one `schemas.report.RunReport`."""
