"""The gateway: from a connection to an answer that is on the record."""
