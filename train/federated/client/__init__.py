"""A hospital's side: local training, its own files, its policy. Flower in `client_app` alone."""
