"""Those who ask: clients of an endpoint, for one row and for many."""
