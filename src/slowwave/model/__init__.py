"""The hybrid language model and its config."""
