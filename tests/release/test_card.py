"""The card says what is on the record, and says what is not."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from instar.core.store import Store
from instar.release import approval, bars, registry
from instar.release.card import card, to_markdown
from tests.evaluate.bundles import make_bundle
from tests.release.conftest import Judge


def test_the_card_of_an_approved_version(store: Store, judge: Judge) -> None:
    found = judge()
    version = registry.register(store, "flights", "delay", bundle=found.bundle, origin="recipe", evaluation=found.id)
    approval.decide(store, version, found, "automatic")
    registry.set_alias(store, "flights", "delay", "stable", 1)
    version = registry.find(store, "flights", "delay@1")
    facts = card(store, version)
    msgspec.json.encode(facts)
    assert (facts["state"], facts["aliases"], facts["barred_until"]) == ("approved", ["stable"], None)
    assert facts["evaluation"]["metrics"] == found.metrics["candidate"]
    assert [one["approved_by"] for one in facts["approvals"]] == ["policy automatic"]
    text = to_markdown(facts)
    for line in (
        "# Model card: delay@1",
        "Approved, known as stable; recipe, registered by ada",
        "| risk | FP64 | no | internal |",
        f"Passed: all gates passed (`{found.id}`)",
        "- approved by policy automatic on 2026-01-01 (automatic)",
        "No objective is on the record.",
    ):
        assert line in text


def test_the_card_of_a_version_nobody_looked_at(store: Store) -> None:
    version = registry.register(store, "flights", "delay", bundle=make_bundle(store), origin="ad hoc")
    bars.bar(store, version, store.clock.event() + timedelta(days=1), "rolled back", "roll_1")
    text = to_markdown(card(store, version))
    for line in ("It was not evaluated.", "Nobody has approved it.", "barred until 2026-01-02T12:00:00+00:00"):
        assert line in text
