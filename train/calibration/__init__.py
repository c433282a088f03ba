"""Calibration on validation scans: temperatures, operating points, the detector's fusion."""
