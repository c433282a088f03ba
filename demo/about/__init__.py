"""The tab About: method, results, limits. Nothing that another tab needs."""
