"""`python -m edge_latup`."""

from edge_latup.cli import main

main()
