"""The browser page: everything a visitor sees. It imports `core` alone; `demo.page.build()` makes the app."""
