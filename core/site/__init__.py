"""A new site: its operating point, set without labels from its own scans."""
