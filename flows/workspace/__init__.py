"""Where runs happen: settings, locks, disk, clock, private servers, the cluster. Imports nothing else from `flows`."""
