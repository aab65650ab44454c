"""points of charts"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chartpoint",
        sa.Column("deployment_id", sa.String(), primary_key=True),
        sa.Column("step_s", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("at", sa.BigInteger(), primary_key=True),
        sa.Column("figures", sa.JSON(), nullable=False),
    )
    op.create_index("ix_chartpoint_step_at", "chartpoint", ["step_s", "at"])


def downgrade() -> None:
    op.drop_table("chartpoint")
