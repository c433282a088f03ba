"""Everything that yields a number: `python -m bench COMMAND` writes results/*.json."""
