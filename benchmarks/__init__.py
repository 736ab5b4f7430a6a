"""What curation, gates and training cost, next to what others offer. Nothing in the application imports this."""
