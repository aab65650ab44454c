"""fine-tuning: jobs and their events"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trainingjob",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("base_model", sa.String(), nullable=False),
        sa.Column("repo", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("training_file", sa.String(), nullable=False),
        sa.Column("validation_file", sa.String(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("total_steps", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Float()),
        sa.Column("validation_loss", sa.Float()),
        sa.Column("runner", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_trainingjob_tenant_at", "trainingjob", ["tenant_id", "created_at"])
    version = ["tenant_id", "repo", "version"]
    op.create_index("uq_trainingjob_version", "trainingjob", version, unique=True)
    op.create_index("ix_trainingjob_state", "trainingjob", ["state"])
    job = sa.ForeignKey("trainingjob.id", ondelete="CASCADE")
    op.create_table(
        "trainingevent",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("job_id", sa.String(), job, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("figures", sa.JSON()),
    )
    op.create_index("ix_trainingevent_job_id", "trainingevent", ["job_id"])


def downgrade() -> None:
    op.drop_table("trainingevent")
    op.drop_table("trainingjob")
