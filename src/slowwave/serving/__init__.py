"""A server for memories, compatible with OpenAI's clients."""
