"""The tab Learn: a lesson of five steps and a quiz. Nothing that another tab needs."""
