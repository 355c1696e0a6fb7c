"""Who may call: tokens and roles as gateways know them, and what is kept of those who were turned away."""
