"""An index for every list, and a check for every word that the contract names."""

from alembic import op

revision = "0005"
down_revision = "0004"
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
CHECKS = {
    "uploads": ("ck_uploads_format", "format IN ('csv', 'xlsx', 'json', 'parquet')"),
    "api_keys": (
        "ck_api_keys_scope_permission",
        "scope_permission IN ('public', 'signed_in', 'viewer', 'editor', 'owner', 'administrator')",
    ),
    "model_versions": (
        "ck_model_versions_primary_metric",
        "primary_metric IN ('accuracy', 'balanced_accuracy', 'precision_macro', 'precision_weighted', 'recall_macro', "
        "'recall_weighted', 'f1_macro', 'f1_weighted', 'roc_auc', 'pr_auc', 'log_loss', 'mcc', 'precision', 'recall', "
        "'f1', 'mae', 'mse', 'rmse', 'r2', 'mape', 'median_ae', 'explained_variance')",
    ),
}


def upgrade() -> None:
    """Apply."""
    exchange(OLD, NEW)
    for table, (name, condition) in CHECKS.items():
        with op.batch_alter_table(table) as batch:
            batch.create_check_constraint(op.f(name), condition)


def downgrade() -> None:
    """Take back."""
    for table, (name, _) in CHECKS.items():
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(op.f(name), type_="check")
    exchange(NEW, OLD)


def exchange(old: dict[str, tuple[str, list[str]]], new: dict[str, tuple[str, list[str]]]) -> None:
    """Drop and make."""
    for name, (table, _) in old.items():
        op.drop_index(name, table)
    for name, (table, columns) in new.items():
        op.create_index(name, table, columns)
