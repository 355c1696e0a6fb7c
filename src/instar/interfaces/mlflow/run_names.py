"""A name for a run that was given none, at its start: two words and a number, easy to say to a colleague."""

from __future__ import annotations

import random

MANNERS = (
    "able", "agile", "amber", "blithe", "bold", "brisk", "calm", "clear", "clever", "crisp", "deft", "eager", "early",
    "fair", "fleet", "fond", "frank", "gentle", "glad", "golden", "hardy", "jolly", "keen", "kind", "lively", "lucid",
    "mellow", "merry", "mild", "neat", "nimble", "patient", "plucky", "quick", "quiet", "rapid", "ready", "serene",
    "sharp", "silver", "steady", "still", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "young",
)  # fmt: skip
INSECTS = (
    "ant", "aphid", "bee", "beetle", "bumblebee", "butterfly", "caddis", "chafer", "cicada", "cricket", "damselfly",
    "dragonfly", "earwig", "emerald", "firefly", "flea", "fly", "gnat", "grasshopper", "hawkmoth", "hornet", "hoverfly",
    "katydid", "lacewing", "ladybird", "leafhopper", "locust", "mantis", "mayfly", "midge", "monarch", "moth", "nymph",
    "sawfly", "scarab", "silkworm", "skipper", "springtail", "stonefly", "swallowtail", "termite", "thrips", "wasp",
    "weevil",
)  # fmt: skip


def random_name() -> str:
    """Such as `swift-mayfly-372`; two runs may have the same."""
    # A generator of its own: neither does a program's seed fix these names, nor do they disturb its numbers.
    chance = random.SystemRandom()
    return f"{chance.choice(MANNERS)}-{chance.choice(INSECTS)}-{chance.randrange(1000)}"
