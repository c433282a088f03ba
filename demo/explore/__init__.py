"""The tab Explore: controls, viewer and handlers. Results are rendered in demo.rendering."""
