"""Order, retries and reuse: which task runs when, and what is already true. Imports tasks and schemas."""
