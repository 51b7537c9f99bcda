"""What mixes the tokens of a block: each kind makes, reads and writes a state of its own."""
