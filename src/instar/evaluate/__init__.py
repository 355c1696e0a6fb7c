"""Is it good, fast, safe and worth it: the evidence on a bundle, and the gates that judge it.

Takes bundles from `train`. Gives evaluations and verdicts to `release`.
"""
