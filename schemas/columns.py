"""Names of ticket columns and shapes of rows, as written in pipelines.yaml."""

from typing import Literal

TicketColumn = Literal[
    "ticket_id", "customer_id", "thread_id", "created_at", "updated_at", "product", "channel",
    "subject", "body", "reply", "category", "priority", "reference", "rating", "messages",
]  # fmt: skip
"""Canonical column names; `schemas/tables.py` gives each one's meaning, unit and PII class."""

Shape = Literal["auto", "ticket", "messages", "alpaca", "sharegpt", "prompt_completion"]
