"""MLflow's REST protocol over the same records: unmodified clients log, search and register, at any moment of training."""
