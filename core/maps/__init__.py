"""Maps of cells over a scan: their connected regions."""
