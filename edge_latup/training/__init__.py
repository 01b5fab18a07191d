"""Minimal, reproducible training: enough to make the demo checkpoint and to adapt a network to a site's cases."""
