"""The browser page: all that a visitor sees. It imports `core` alone; see `demo.page.build`."""
