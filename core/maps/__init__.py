"""Maps over a scan: the regions of a tumour map, and Grad-CAM."""
