"""How long a model version takes for a row."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; nobody measured it of the versions that are there."""
    with op.batch_alter_table("model_versions") as batch:
        batch.add_column(sa.Column("inference_time_ms", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("model_versions") as batch:
        batch.drop_column("inference_time_ms")
