"""evaluations: batches whose answers are scored; imports of base models"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evaluation",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("variants", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("json_schema", sa.JSON()),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.String(), sa.ForeignKey("batch.id"), nullable=False, unique=True),
        sa.Column("scores", sa.JSON()),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("results_file_id", sa.String()),
        sa.Column("scoring_asked_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    with op.batch_alter_table("adapterimport") as batch:
        batch.add_column(sa.Column("model", sa.String(), nullable=False, server_default=""))
    op.create_index("ix_evaluation_tenant_at", "evaluation", ["tenant_id", "created_at"])


def downgrade() -> None:
    with op.batch_alter_table("adapterimport") as batch:
        batch.drop_column("model")
    op.drop_table("evaluation")
