"""Living with a model: sessions, what they were told, and what became of it."""
