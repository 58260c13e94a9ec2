"""What the corpus shares with evaluation sets and with Wikipedia."""
