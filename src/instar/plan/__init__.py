"""What is wanted, and the steps to it: the first stage of the life cycle.

Takes `instar.toml` and the project's Python files. Gives the contract and the executed pipeline to `data` and after.
"""
