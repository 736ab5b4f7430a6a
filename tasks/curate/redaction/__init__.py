"""What counts as personal data in a text, and where it stands."""
