"""Which texts are kept: those of a language, and those that pass the rules of a preset."""
