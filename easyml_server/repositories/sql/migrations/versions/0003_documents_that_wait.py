"""Writes of documents that wait to be applied on a server of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "pending_documents",
        sa.Column("revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("collection", sa.String(length=64), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_pending_documents")),
        sa.UniqueConstraint("collection", "document_id", name=op.f("uq_pending_documents_collection_document_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("pending_documents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_pending_documents_project_id"), ["project_id"], unique=False)
    with op.batch_alter_table("store_identity", schema=None) as batch_op:
        batch_op.add_column(sa.Column("documents_layout", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    """Take back. What waits is lost: have it applied before."""
    with op.batch_alter_table("store_identity", schema=None) as batch_op:
        batch_op.drop_column("documents_layout")
    op.drop_table("pending_documents")
