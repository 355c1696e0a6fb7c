"""Which bundles a project has: put on the record when they are packed, found again by step, by fit, and by digest."""

from __future__ import annotations

import sqlalchemy as sa

from instar.core import journal, lineage
from instar.core.database import Instant, Transaction, metadata
from instar.core.store import Store
from instar.train.bundle import Manifest, content_digest

bundle_table = sa.Table(
    "bundle",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("step", sa.String(200), nullable=False),
    sa.Column("run", sa.String(60), nullable=False, index=True),
    sa.Column("content", sa.String(80), nullable=False),
    sa.Column("refit_of", sa.String(80)),
    sa.Column("fit_key", sa.String(80), nullable=False, index=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("current_at", Instant, nullable=False),  # when it last became the output of its step
)


def record(tx: Transaction, store: Store, project: str, digest: str, manifest: Manifest, fit_key: str) -> None:
    """Put a packed bundle on the record, inside the transaction that needs it, with its lineage and its journal entry.

    The last statement of that transaction. Doing it again makes the bundle its step's current output, no more.
    """
    if make_current(tx, store, project, digest) is not None:
        return
    now = store.clock.wall()
    tx.execute(
        bundle_table.insert().values(
            project=project, digest=digest, model=manifest.model, step=manifest.step, run=manifest.run,
            content=content_digest(manifest), refit_of=manifest.refit_of, fit_key=fit_key, created_at=now,
            current_at=now,
        )
    )  # fmt: skip
    lineage.link(tx, project, manifest.run, "made", digest)
    if manifest.refit_of:
        lineage.link(tx, project, manifest.refit_of, "was refitted as", digest)
    body: dict[str, str | None] = {
        "model": manifest.model,
        "step": manifest.step,
        "run": manifest.run,
        "recipe": manifest.recipe,
    }
    body |= {"fitted_on": manifest.fitted_on, "refit_of": manifest.refit_of}
    journal.append(tx, store.clock, store.actor, project, "bundle packed", digest, body)


def make_current(tx: Transaction, store: Store, project: str, digest: str) -> str | None:
    """Make a recorded bundle its step's current output; returns its content digest, None when it is not recorded."""
    row = (bundle_table.c.project == project) & (bundle_table.c.digest == digest)
    content: str | None = tx.execute(sa.select(bundle_table.c.content).where(row)).scalar()
    if content is not None:
        tx.execute(bundle_table.update().where(row).values(current_at=store.clock.wall()))
    return content


def current(tx: Transaction, project: str, step: str) -> tuple[str, str] | None:
    """Bundle and content digest of a step's current output; refits are outputs of no step."""
    if not step:  # what was logged is the output of no step
        return None
    query = sa.select(bundle_table.c.digest, bundle_table.c.content).where(
        bundle_table.c.project == project, bundle_table.c.step == step, bundle_table.c.refit_of.is_(None)
    )
    row = tx.execute(query.order_by(bundle_table.c.current_at.desc(), bundle_table.c.run.desc())).first()
    return None if row is None else (row.digest, row.content)


def of_fit(tx: Transaction, project: str, fit_key: str) -> str | None:
    """Digest of the newest bundle made by a fit with that key (same recipe, rows and threshold); None without one."""
    query = sa.select(bundle_table.c.digest).where(bundle_table.c.project == project, bundle_table.c.fit_key == fit_key)
    return tx.execute(query.order_by(bundle_table.c.created_at.desc(), bundle_table.c.digest)).scalars().first()


def of_run(tx: Transaction, run: str) -> list[str]:
    """Digests of the bundles that a run made."""
    query = sa.select(bundle_table.c.digest).where(bundle_table.c.run == run)
    return list(tx.execute(query.order_by(bundle_table.c.created_at, bundle_table.c.digest)).scalars())


def has(tx: Transaction, project: str, digest: str) -> bool:
    """Is the bundle on the project's record?"""
    row = (bundle_table.c.project == project) & (bundle_table.c.digest == digest)
    return tx.execute(sa.select(bundle_table.c.digest).where(row)).first() is not None
