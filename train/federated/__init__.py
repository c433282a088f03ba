"""Federated training: what server and clients share. Learning is in client/, rounds in server/."""
