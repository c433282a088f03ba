"""Federated training: what clients and server share, and the commands. No networks, no losses."""
