"""The server: rounds, registration, aggregation. It never sees a scan."""
