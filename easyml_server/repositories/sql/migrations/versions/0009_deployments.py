"""Deployments and their revisions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
TIME = sa.DateTime(timezone=True)
STATES = "state IN ('progressing', 'ready', 'degraded', 'failed', 'stopping', 'stopped')"
REVISION_STATES = "state IN ('progressing', 'active', 'failed', 'retired')"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "model_deployments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(4000), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("stopped", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("latest_revision", sa.Integer(), nullable=False),
        sa.Column("active_revision", sa.Integer(), nullable=False),
        sa.Column("replicas", JSON, nullable=False),
        sa.Column("conditions", JSON, nullable=False),
        sa.Column("creator_id", sa.Uuid(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
        sa.Column("etag", sa.String(64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.CheckConstraint(STATES, name=op.f("ck_model_deployments_state")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_model_deployments_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["creator_id"], ["users.id"], name=op.f("fk_model_deployments_creator_id_users"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_deployments")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_model_deployments_project_id_name")),
    )
    op.create_index(
        "ix_model_deployments_project_id_create_time", "model_deployments", ["project_id", "create_time", "id"]
    )
    op.create_index("ix_model_deployments_state", "model_deployments", ["state"])
    op.create_table(
        "deployment_revisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model_version_id", sa.Uuid(), nullable=True),
        sa.Column("model_name", sa.String(255), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("creator_id", sa.Uuid(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("activate_time", TIME, nullable=True),
        sa.Column("retire_time", TIME, nullable=True),
        sa.CheckConstraint(REVISION_STATES, name=op.f("ck_deployment_revisions_state")),
        sa.ForeignKeyConstraint(
            ["deployment_id"],
            ["model_deployments.id"],
            name=op.f("fk_deployment_revisions_deployment_id_model_deployments"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_deployment_revisions_model_version_id_model_versions"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment_revisions")),
        sa.UniqueConstraint("deployment_id", "number", name=op.f("uq_deployment_revisions_deployment_id_number")),
    )
    op.create_index(op.f("ix_deployment_revisions_model_version_id"), "deployment_revisions", ["model_version_id"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("deployment_revisions")
    op.drop_table("model_deployments")
