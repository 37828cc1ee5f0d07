"""Alembic's entry: runs the migrations on the connection that `migrate` hands over."""

from alembic import context

from easyml_server.repositories.sql.deployments import ModelDeployment

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=ModelDeployment.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
