"""The tab Batch: many scans, one table. Nothing that another tab needs."""
