"""captured exchanges; versions that shadow an alias"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("deployment") as batch:
        batch.add_column(sa.Column("capture", sa.Float(), nullable=False, server_default="0"))
    with op.batch_alter_table("alias") as batch:
        batch.add_column(sa.Column("shadow", sa.Integer()))
        batch.add_column(sa.Column("shadow_percent", sa.Float(), nullable=False, server_default="0"))
    op.create_table(
        "capturedexchange",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("tenant_id", sa.String(), sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("deployment_id", sa.String(), sa.ForeignKey("deployment.id"), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("shadows", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    of = ["tenant_id", "deployment_id", "id"]
    op.create_index("ix_capturedexchange_of", "capturedexchange", of)
    op.create_index("ix_capturedexchange_at", "capturedexchange", ["at"])


def downgrade() -> None:
    op.drop_table("capturedexchange")
    with op.batch_alter_table("alias") as batch:
        batch.drop_column("shadow_percent")
        batch.drop_column("shadow")
    with op.batch_alter_table("deployment") as batch:
        batch.drop_column("capture")
