"""repos, archived and deleted versions; datasets; URLs for uploads; totals of deployments"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    repo = op.create_table(
        "repo",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_repo_tenant_id", "repo", ["tenant_id"])
    op.create_index("uq_repo_name", "repo", ["tenant_id", "name"], unique=True)
    with op.batch_alter_table("adapter") as batch:
        batch.add_column(sa.Column("archived", sa.Boolean(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True)))
    adapter = sa.table(
        "adapter",
        *(sa.column("tenant_id"), sa.column("repo")),
        sa.column("created_at", sa.DateTime(timezone=True)),
    )
    there = sa.select(adapter.c.tenant_id, adapter.c.repo, sa.func.min(adapter.c.created_at))
    connection = op.get_bind()
    for tenant, name, since in connection.execute(there.group_by("tenant_id", "repo")).all():
        row = {"id": f"repo-{secrets.token_hex(6)}", "tenant_id": tenant, "name": name}
        connection.execute(repo.insert().values(row | {"description": "", "created_at": since}))
    op.create_table(
        "dataset",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("file_id", sa.String(), sa.ForeignKey("storedfile.id"), nullable=False),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_dataset_tenant_id", "dataset", ["tenant_id"])
    op.create_index("ix_dataset_file_id", "dataset", ["file_id"])
    op.create_index("uq_dataset_name", "dataset", ["tenant_id", "name"], unique=True)
    op.create_table(
        "transfer",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_transfer_tenant_id", "transfer", ["tenant_id"])
    op.create_index("ix_transfer_expires_at", "transfer", ["expires_at"])
    op.create_table(
        "alias",
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), primary_key=True),
        sa.Column("repo", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("base_model", sa.String(), nullable=False),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("previous", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "adapterimport",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("repo", sa.String(), nullable=False),
        sa.Column("base_model", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("doing", sa.String(), nullable=False),
        sa.Column("progress", sa.Float()),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("runner", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_adapterimport_tenant_at", "adapterimport", ["tenant_id", "created_at"])
    unfinished = sa.text("state IN ('queued', 'running')")
    op.create_index(
        "uq_adapterimport_unfinished",
        "adapterimport",
        ["tenant_id", "source", "repo"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
    op.create_index("ix_adapterimport_state", "adapterimport", ["state"])
    op.create_table(
        "totals",
        sa.Column("deployment_id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("counted", sa.JSON(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("totals")
    op.drop_table("adapterimport")
    op.drop_table("alias")
    op.drop_table("transfer")
    op.drop_table("dataset")
    op.drop_table("repo")
    op.execute("DELETE FROM adapter WHERE deleted_at IS NOT NULL")
    with op.batch_alter_table("adapter") as batch:
        batch.drop_column("deleted_at")
        batch.drop_column("archived")
