"""The tab Learn: a lesson of six steps and a quiz. Nothing that another tab needs."""
