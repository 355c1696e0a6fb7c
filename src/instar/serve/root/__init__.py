"""The root of a running server: which processes there are, begun, looked after and ended."""
