"""Tables and figures of the docs, made from results/*.json. Nothing is measured here."""
