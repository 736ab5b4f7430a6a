"""Label errors: tickets whose label contradicts equal questions, or is unlikely given all other tickets."""
