"""What the curation stage costs, measured beside what others offer. Nothing in the application imports this folder."""
