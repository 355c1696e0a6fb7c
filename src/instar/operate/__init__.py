"""Watch, compare, decide, go round again: outcomes, monitors, alerts, rollouts, traces and audits.

Takes the prediction log from `serve`. Closes the circle by calling down to `plan` for a gated retraining.
"""
