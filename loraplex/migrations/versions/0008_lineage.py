"""what adapters were made of: checkpoints, lineage, tags; trainings that go on from an adapter, and
have places of the fleet"""

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
        batch.add_column(sa.Column("host", sa.String(), nullable=False, server_default=""))
        batch.add_column(sa.Column("slot", sa.Integer()))
        batch.add_column(sa.Column("placed_at", sa.DateTime(timezone=True)))
        batch.add_column(sa.Column("yielding", sa.Boolean(), nullable=False, server_default="0"))
    placed = sa.text("host != ''")
    op.create_index(
        "uq_trainingjob_place",
        "trainingjob",
        ["host", "slot"],
        unique=True,
        sqlite_where=placed,
        postgresql_where=placed,
    )


def downgrade() -> None:
    """Checkpoints are forgotten: an earlier release would take them for versions."""
    op.drop_index("uq_trainingjob_place", "trainingjob")
    with op.batch_alter_table("trainingjob") as batch:
        for name in ("yielding", "placed_at", "slot", "host"):
            batch.drop_column(name)
        batch.drop_column("left_s")
        batch.drop_column("parent")
    op.execute("DELETE FROM adapter WHERE checkpoint <> 0")
    op.drop_index(_INDEX, "adapter")
    with op.batch_alter_table("adapter") as batch:
        batch.drop_column("lineage")
        batch.drop_column("tags")
        batch.drop_column("checkpoint")
    op.create_index(_INDEX, "adapter", _VERSION, unique=True)
