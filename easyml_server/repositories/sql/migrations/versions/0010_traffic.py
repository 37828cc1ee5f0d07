"""Revisions that share the calls of a deployment."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
CHECK = "ck_deployment_revisions_state"
OLD = "state IN ('progressing', 'active', 'failed', 'retired')"
NEW = "state IN ('progressing', 'active', 'failed', 'retired', 'standby', 'withdrawn')"


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("model_deployments") as batch:
        batch.add_column(sa.Column("traffic", JSON, nullable=False, server_default="{}"))
        batch.add_column(sa.Column("canary", JSON, nullable=True))
    with op.batch_alter_table("deployment_revisions") as batch:
        batch.add_column(sa.Column("traffic", JSON, nullable=False, server_default="[]"))
        batch.add_column(sa.Column("message", sa.String(1000), nullable=False, server_default=""))
        batch.drop_constraint(op.f(CHECK), type_="check")
        batch.create_check_constraint(op.f(CHECK), NEW)
    # Of those that answer now; rows to come say it themselves.
    with op.batch_alter_table("model_deployments") as batch:
        batch.alter_column("traffic", server_default=None)
    with op.batch_alter_table("deployment_revisions") as batch:
        batch.alter_column("traffic", server_default=None)
        batch.alter_column("message", server_default=None)


def downgrade() -> None:
    """Take back; revisions that were on their way count as replaced."""
    op.execute("UPDATE deployment_revisions SET state = 'retired' WHERE state IN ('standby', 'withdrawn')")
    with op.batch_alter_table("deployment_revisions") as batch:
        batch.drop_constraint(op.f(CHECK), type_="check")
        batch.create_check_constraint(op.f(CHECK), OLD)
        batch.drop_column("message")
        batch.drop_column("traffic")
    with op.batch_alter_table("model_deployments") as batch:
        batch.drop_column("canary")
        batch.drop_column("traffic")
