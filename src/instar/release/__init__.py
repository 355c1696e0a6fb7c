"""From candidate to approved version: the registry, approvals, scans and model cards.

Takes bundles and verdicts from the stages before. Gives approved model versions to `serve`.
"""
