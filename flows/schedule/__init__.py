"""What surrounds the stages of a run: when it is due, its turn, whether it is worth it, pools, its page, approval."""
