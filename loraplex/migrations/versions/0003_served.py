"""what served last"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("deployment") as batch:
        batch.add_column(sa.Column("served", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE deployment SET served = revision WHERE status IN ('ready', 'updating') "
        "OR (starts > 0 AND status IN ('standby', 'stopped') AND failed_starts = 0)"
    )
    # What was stopped before it was fetched must be fetched when it is started.
    op.execute("UPDATE deployment SET prepared = 0 WHERE starts = 0 AND status = 'stopped'")


def downgrade() -> None:
    with op.batch_alter_table("deployment") as batch:
        batch.drop_column("served")
