"""`python -m fsdriver`."""

from fsdriver.cli import main

main()
