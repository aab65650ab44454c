"""usage records, plans, budgets; shared deployments with limits; webhooks; files, batches, responses"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plan",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("requests_per_min", sa.Integer()),
        sa.Column("tokens_per_min", sa.Integer()),
        sa.Column("tokens_per_day", sa.Integer()),
        sa.Column("concurrent", sa.Integer()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    with op.batch_alter_table("tenant") as batch:
        batch.add_column(sa.Column("plan_id", sa.String()))
        batch.create_foreign_key("fk_tenant_plan_id", "plan", ["plan_id"], ["id"])
        batch.add_column(sa.Column("budget", sa.Float()))
        batch.add_column(
            sa.Column("budget_warn_at", sa.Float(), nullable=False, server_default="0.8")
        )
        batch.add_column(
            sa.Column("budget_state", sa.String(), nullable=False, server_default="within")
        )
        batch.add_column(sa.Column("budget_month", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("deployment") as batch:
        batch.add_column(sa.Column("shared", sa.Boolean(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("limits", sa.JSON(), nullable=False, server_default="{}"))
    op.create_table(
        "usagerecord",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("first", sa.Boolean(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("queue_s", sa.Float(), nullable=False),
        sa.Column("first_token_s", sa.Float()),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
    )
    op.create_index("ix_usagerecord_tenant_at", "usagerecord", ["tenant_id", "at"])
    op.create_index("ix_usagerecord_at", "usagerecord", ["at"])
    op.create_index("ix_usagerecord_deployment_id", "usagerecord", ["deployment_id"])
    op.create_index("ix_replica_gone_at", "replica", ["gone_at"])
    op.create_table(
        "webhook",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_webhook_tenant_id", "webhook", ["tenant_id"])
    op.create_table(
        "webhookdelivery",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column(
            "webhook_id",
            sa.String(),
            sa.ForeignKey("webhook.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status_code", sa.Integer()),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_webhookdelivery_webhook_id", "webhookdelivery", ["webhook_id"])
    op.create_index("ix_webhookdelivery_due", "webhookdelivery", ["state", "next_at"])
    op.create_table(
        "storedfile",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_storedfile_tenant_id", "storedfile", ["tenant_id"])
    op.create_table(
        "batch",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("input_file_id", sa.String(), nullable=False),
        sa.Column("output_file_id", sa.String()),
        sa.Column("error_file_id", sa.String()),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("times", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("runner", sa.String(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_batch_tenant_id", "batch", ["tenant_id"])
    op.create_index("ix_batch_status", "batch", ["status"])
    op.create_table(
        "storedresponse",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_storedresponse_tenant_id", "storedresponse", ["tenant_id"])
    op.create_index("ix_storedresponse_created_at", "storedresponse", ["created_at"])


def downgrade() -> None:
    op.drop_table("storedresponse")
    op.drop_table("batch")
    op.drop_table("storedfile")
    op.drop_table("webhookdelivery")
    op.drop_table("webhook")
    op.drop_index("ix_replica_gone_at", "replica")
    op.drop_table("usagerecord")
    with op.batch_alter_table("deployment") as batch:
        batch.drop_column("limits")
        batch.drop_column("shared")
    with op.batch_alter_table("tenant") as batch:
        batch.drop_constraint("fk_tenant_plan_id", type_="foreignkey")
        for name in ("budget_month", "budget_state", "budget_warn_at", "budget", "plan_id"):
            batch.drop_column(name)
    op.drop_table("plan")
