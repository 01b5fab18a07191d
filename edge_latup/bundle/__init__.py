"""Bundles: one signed folder or archive. What verifies one needs the standard library, pydantic and cryptography only."""
