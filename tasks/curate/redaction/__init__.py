"""Find personal data in texts: `personal.find_personal` and `ticket.TicketRedactor`."""
