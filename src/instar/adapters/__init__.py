"""The edge towards technologies: one file for a port and its technology. Only `app` imports from here."""
