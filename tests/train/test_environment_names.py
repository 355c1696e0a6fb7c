"""The names and versions of what is installed are those that the standard library finds, only quicker."""

from __future__ import annotations

from importlib import metadata

from instar.train import environment


def test_names_and_versions_are_those_of_the_standard_library() -> None:
    found = environment.capture().distributions
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            first = next(metadata.distributions(name=name))
            assert found[environment.normal(name)] == first.version
