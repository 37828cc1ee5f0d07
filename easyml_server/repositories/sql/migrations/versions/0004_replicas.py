"""Several servers on one database: whose a training is, and attempts to sign in, counted for all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    # Plain statements, which both engines know: a table that is made anew in between would lose its checks.
    op.add_column("ml_experiments", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("ml_experiments", sa.Column("owner", sa.Uuid(), nullable=True))
    op.add_column("ml_experiments", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
    # Until now each claim made a number of its own.
    op.execute("UPDATE ml_experiments SET attempts = fencing")
    op.create_table(
        "sign_in_attempts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("counted", sa.String(length=64), nullable=False),
        sa.Column("attempt_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_attempts")),
    )
    op.create_index(op.f("ix_sign_in_attempts_counted_attempt_time"), "sign_in_attempts", ["counted", "attempt_time"])
    op.create_index(op.f("ix_sign_in_attempts_attempt_time"), "sign_in_attempts", ["attempt_time"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("sign_in_attempts")
    for column in ("lease_until", "owner", "attempts"):
        op.drop_column("ml_experiments", column)
