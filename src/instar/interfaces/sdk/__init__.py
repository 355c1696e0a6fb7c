"""The Python interface: a client of a running server, and runs recorded from any script or notebook."""
