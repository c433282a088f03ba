"""The browser page, built by `demo.page.build`.

It imports `core` only: no training and no measuring here.
"""
