"""The server's side: registration, rounds, aggregation, the live table. No scans, no training."""
