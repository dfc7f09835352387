"""How many tokens each clip will have, counted without decoding."""
