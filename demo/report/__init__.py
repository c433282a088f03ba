"""Reports of an analysis as JSON, PDF and PNG, and buttons that hand out files. No analysis."""
