"""From features to a model that can be made again: runs, trials, bundles and their environments.

Takes table versions from `data`. Gives runs and bundles to `evaluate` and `release`.
"""
