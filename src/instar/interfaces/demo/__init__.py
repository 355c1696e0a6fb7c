"""The demo: a year of real flights driven round the whole life cycle, and the report on it."""
