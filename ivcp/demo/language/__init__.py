"""A base model that speaks: SmolLM2 behind a small vision tower that learned to show it the drawn figures."""
