"""From anything to features that can be trusted: bronze, silver and gold tables, checked and profiled.

Takes steps and keys from `plan`. Gives immutable table versions to `train`, `evaluate` and `serve`.
"""
