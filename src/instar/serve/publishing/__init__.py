"""From a decision to routes at work: a version is tried, its environment built, and what gateways answer from written."""
