"""A memory for models that run elsewhere: a proxy of a chat endpoint."""
