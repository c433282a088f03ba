"""Scans of patients and hospitals that the weights never saw: by source, view, kind and size."""
