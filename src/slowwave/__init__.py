"""slowwave: sleep for language models."""
