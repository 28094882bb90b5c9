"""`python -m keyserver`: the command without its entry point."""

from keyserver.cli import main

main()
