"""DICOM files and series: headers, frames, compressed streams. No other format."""
