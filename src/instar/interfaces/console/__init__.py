"""The console: server-rendered pages over the same record, each with a JSON twin."""
