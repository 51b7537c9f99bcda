"""The commands, a file each: its options, and `run`, which is called with the arguments."""
