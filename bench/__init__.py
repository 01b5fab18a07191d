"""Latency, memory, size and drift, measured; raw samples kept in records, from which tables and reports are derived."""
