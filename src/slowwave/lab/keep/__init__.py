"""What memories keep of a model's context: texts, scores, and who is compared."""
