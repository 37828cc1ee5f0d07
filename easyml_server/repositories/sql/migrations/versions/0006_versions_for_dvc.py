"""Versions that were there before are brought to DVC."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KINDS = {"dataset_versions": "add_dataset_version", "model_versions": "add_model_version"}
FORGOTTEN = ("add_dataset_version", "add_model_version", "forget_version", "forget_project")


def upgrade() -> None:
    """Apply."""
    for column in ("kind", "subject_id"):
        op.create_index(op.f(f"ix_outbox_{column}"), "outbox", [column])
    for table, kind in KINDS.items():
        op.execute(
            sa.text(
                f"INSERT INTO outbox (kind, subject_id, attempts, due_time) "  # noqa: S608 - names of our own
                f"SELECT '{kind}', id, 0, create_time FROM {table}"
            )
        )


def downgrade() -> None:
    """Take back: the release before does not know these intents, nor the documents."""
    for column in ("kind", "subject_id"):
        op.drop_index(op.f(f"ix_outbox_{column}"), "outbox")
    outbox = sa.table("outbox", sa.column("kind"))
    op.execute(sa.delete(outbox).where(outbox.c.kind.in_(FORGOTTEN)))
    documents = sa.table("documents", sa.column("collection"))
    op.execute(sa.delete(documents).where(documents.c.collection == "dvc_metadata"))
