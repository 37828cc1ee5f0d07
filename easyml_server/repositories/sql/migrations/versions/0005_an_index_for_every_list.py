"""An index for every list."""

from alembic import op

revision = "0005"
down_revision = "0002"
branch_labels = None
depends_on = None

NEW = {
    "ix_projects_name": ("projects", ["name", "id"]),
    "ix_projects_visibility": ("projects", ["visibility", "id"]),
    "ix_ml_experiments_project_id_state": ("ml_experiments", ["project_id", "state", "create_time", "id"]),
    "ix_ml_experiments_project_id_algorithm": ("ml_experiments", ["project_id", "algorithm", "create_time", "id"]),
    "ix_ml_experiments_dataset_id": ("ml_experiments", ["dataset_id", "create_time", "id"]),
    "ix_documents_id": ("documents", ["id"]),
}
OLD = {
    "ix_ml_experiments_dataset_id": ("ml_experiments", ["dataset_id"]),
    "ix_ml_experiments_algorithm": ("ml_experiments", ["algorithm"]),
}


def upgrade() -> None:
    """Apply."""
    exchange(OLD, NEW)


def downgrade() -> None:
    """Take back."""
    exchange(NEW, OLD)


def exchange(old: dict[str, tuple[str, list[str]]], new: dict[str, tuple[str, list[str]]]) -> None:
    """Drop and make."""
    for name, (table, _) in old.items():
        op.drop_index(name, table)
    for name, (table, columns) in new.items():
        op.create_index(name, table, columns)
