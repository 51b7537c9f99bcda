"""`python -m slowwave` is the command `slowwave`; torchrun and others start modules by name."""

from slowwave.cli import main

main()
