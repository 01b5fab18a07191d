"""The hardware an artifact runs on: what this host is, and profiles of others."""
