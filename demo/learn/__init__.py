"""The tab Learn: a lesson of seven steps and a quiz. Nothing that another tab needs."""
