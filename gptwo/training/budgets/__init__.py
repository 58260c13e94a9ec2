"""How large, how long, how fast: chosen from the time there is, or by trying."""
