"""One hospital: local training, personal state, its policy. Transport is in client_app alone."""
