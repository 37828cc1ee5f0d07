"""Which DVC remote versions are brought to."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("store_identity", sa.Column("dvc_remote", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("store_identity", "dvc_remote")
