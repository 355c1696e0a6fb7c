"""What answers calls, who may ask, and what the record of answers keeps beside the log."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _identity()
    _record()
    _costs()


def _identity() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(60), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("endpoints", sa.Text),
        sa.Column("rate", sa.Float),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("used_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("revoked_by", sa.String(200)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_token_hash")),
    )
    op.create_index(op.f("ix_api_token_name"), "api_token", ["name"])
    op.create_table(
        "access_refusal",
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.Column("caller", sa.String(200), nullable=False),
        sa.Column("route", sa.String(300), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("minute", "caller", "route", "status", "project", name=op.f("pk_access_refusal")),
    )


def _record() -> None:
    op.create_table(
        "call_unit",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("rows_path", sa.String(length=400), nullable=False),
        sa.Column("rows_digest", sa.String(length=80), nullable=False),
        sa.Column("rows_size", sa.BigInteger(), nullable=False),
        sa.Column("frames_path", sa.String(length=400), nullable=False),
        sa.Column("frames_digest", sa.String(length=80), nullable=False),
        sa.Column("frames_size", sa.BigInteger(), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("first_call", sa.String(length=40), nullable=False),
        sa.Column("last_call", sa.String(length=40), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("segments", sa.Text(), nullable=False),
        sa.Column("listed", sa.Text(), nullable=False),
        sa.Column("lost", sa.String(length=40), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_unit")),
    )
    op.create_index("ix_call_unit_call", "call_unit", ["first_call", "last_call"], unique=False)
    op.create_index("ix_call_unit_at", "call_unit", ["endpoint", "first_at"], unique=False)
    op.create_table(
        "call_table",
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=False),
        sa.Column("delta_version", sa.BigInteger(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project", "endpoint", name=op.f("pk_call_table")),
    )
    op.create_table(
        "erasure",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=True),
        sa.Column("selector", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(length=200), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure")),
    )
    op.create_table(
        "record_hold",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.String(length=200), nullable=False),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.Column("released_by", sa.String(length=200), nullable=True),
        sa.Column("released_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_record_hold")),
    )
    _name_units()
    op.add_column("segment", sa.Column("gaps", sa.Text(), nullable=True))
    op.drop_column("segment", "files")
    op.drop_column("segment", "delta_version")


def _costs() -> None:
    op.create_table(
        "serving_usage",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("what", sa.String(length=100), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bundle", sa.String(length=80), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("cpu_seconds", sa.Float(), nullable=False),
        sa.Column("byte_seconds", sa.Float(), nullable=False),
        sa.Column("busy_seconds", sa.Float(), nullable=False),
        sa.Column("starts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "what", "endpoint", "version", "bundle", name=op.f("pk_serving_usage")),
    )
    op.create_table(
        "serving_account",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("taken_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_serving_account")),
    )


def _name_units() -> None:
    """What was sealed before: one file of rows with their frames beside them, which is both files of a unit."""
    connection = op.get_bind()
    unit = sa.table("call_unit", *(sa.column(name) for name in _UNIT))
    table = sa.table("call_table", *(sa.column(name) for name in ("project", "endpoint", "delta_version")))
    newest: dict[tuple[str, str], int] = {}
    for row in connection.execute(sa.text("SELECT * FROM segment ORDER BY id")).mappings().all():
        key = (row["project"], row["endpoint"])
        newest[key] = max(newest.get(key, -1), row["delta_version"])
        for number, (file, digest) in enumerate(sorted(json.loads(row["files"]).items())):
            path = f"{row['endpoint']}__predictions/{file}"
            values = (
                _unit_id(row["id"], number), row["project"], row["endpoint"], "", path, digest, 0, path, digest, 0,
                row["predictions"], row["first_call"], row["last_call"], row["first_at"], row["last_at"],
                json.dumps([row["id"]]), "{}", "", row["sealed_at"], None,
            )  # fmt: skip
            connection.execute(unit.insert().values(**dict(zip(_UNIT, values, strict=True))))
    for (project, endpoint), version in newest.items():
        connection.execute(table.insert().values(project=project, endpoint=endpoint, delta_version=version))


_UNIT = (
    "id", "project", "endpoint", "day", "rows_path", "rows_digest", "rows_size", "frames_path", "frames_digest",
    "frames_size", "predictions", "first_call", "last_call", "first_at", "last_at", "segments", "listed", "lost",
    "added_at", "retired_at",
)  # fmt: skip


def _unit_id(segment: str, number: int) -> str:
    # An endpoint's name may be long, an id may not; nobody reads anything from the id of a unit.
    return "unit_" + hashlib.blake2b(f"{segment}/{number}".encode(), digest_size=16).hexdigest()


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
