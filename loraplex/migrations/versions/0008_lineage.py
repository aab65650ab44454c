"""what adapters were made of: checkpoints, lineage, tags; trainings that go on from an adapter"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_INDEX = "uq_adapter_version"
_VERSION = ["tenant_id", "repo", "version"]


def upgrade() -> None:
    with op.batch_alter_table("adapter") as batch:
        batch.add_column(sa.Column("checkpoint", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("tags", sa.JSON(), nullable=False, server_default="{}"))
        batch.add_column(sa.Column("lineage", sa.JSON(), nullable=False, server_default="{}"))
    op.drop_index(_INDEX, "adapter")
    op.create_index(_INDEX, "adapter", [*_VERSION, "checkpoint"], unique=True)
    with op.batch_alter_table("trainingjob") as batch:
        batch.add_column(sa.Column("parent", sa.String(), nullable=False, server_default=""))
        batch.add_column(sa.Column("left_s", sa.Float()))


def downgrade() -> None:
    """Checkpoints are forgotten: an earlier release would take them for versions."""
    with op.batch_alter_table("trainingjob") as batch:
        batch.drop_column("left_s")
        batch.drop_column("parent")
    op.execute("DELETE FROM adapter WHERE checkpoint <> 0")
    op.drop_index(_INDEX, "adapter")
    with op.batch_alter_table("adapter") as batch:
        batch.drop_column("lineage")
        batch.drop_column("tags")
        batch.drop_column("checkpoint")
    op.create_index(_INDEX, "adapter", _VERSION, unique=True)
