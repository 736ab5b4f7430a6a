"""Where a run happens: settings, locks, disk, clock, private servers, the cluster. Imports nothing else of flows."""
