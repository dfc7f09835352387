"""A search for better settings: many short trainings on clips that are prepared once, compared by validation."""
