"""The HTTP API of the control process: one file a stage, each route registered with the permission that it needs."""
