"""Which server looks after a deployment, and until when."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("model_deployments") as batch:
        batch.add_column(sa.Column("owner", sa.Uuid, nullable=True))
        batch.add_column(sa.Column("owner_address", sa.String(255), nullable=False, server_default=""))
        batch.add_column(sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("fencing", sa.Integer, nullable=False, server_default="0"))
    with op.batch_alter_table("model_deployments") as batch:
        batch.alter_column("owner_address", server_default=None)
        batch.alter_column("fencing", server_default=None)


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("model_deployments") as batch:
        batch.drop_column("fencing")
        batch.drop_column("lease_until")
        batch.drop_column("owner_address")
        batch.drop_column("owner")
