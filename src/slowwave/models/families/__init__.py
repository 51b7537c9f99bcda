"""Families of pretrained models: how each writes its config.json, and names its weights."""
