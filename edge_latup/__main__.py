"""`python -m edge_latup`."""

from edge_latup.cli import main

if __name__ == "__main__":  # processes that it starts import it under another name
    main()
