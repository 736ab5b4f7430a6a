"""`make demo-schedule`: eight weeks of a help desk under a fake clock, tick by tick."""
