"""A model over HTTP: completions, scores and tokens as OpenAI's clients ask for them (text/)."""
