"""The one data plane: routes, gateways, workers, and the record of every call.

Takes approved versions from `release`. Gives answers to applications, and the prediction log to `operate`.
"""
