"""revisions, fencing, knobs of the law"""

import sqlalchemy as sa
from alembic import op

import loraplex.entities

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None



def _columns() -> dict[str, list[sa.Column]]:
    return {
        "deployment": [
            sa.Column("target_wait_s", sa.Float(), nullable=False, server_default="10"),
            sa.Column("cold_start_weight", sa.Float(), nullable=False, server_default="3"),
            sa.Column("schedules", sa.JSON(), nullable=False, server_default="[]"),
            sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("revision", sa.Integer(), nullable=False, server_default="1"),
            sa.Column("target", sa.Integer(), nullable=False, server_default="1"),
            sa.Column("prepared", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("progress", sa.Float(), nullable=True),
            sa.Column("starts", sa.Integer(), nullable=False, server_default="0"),
        ],
        "replica": [
            sa.Column("revision", sa.Integer(), nullable=False, server_default="1"),
            sa.Column("host", sa.String(), nullable=False, server_default="local"),
            sa.Column("slot", sa.Integer(), nullable=False, server_default="0"),
        ],
    }


def upgrade() -> None:
    op.create_table(
        "revision",
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("base_model", sa.String(), nullable=False),
        sa.Column("engine", sa.JSON(), nullable=False),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.Column("created_at", loraplex.entities.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployment.id"]),
        sa.PrimaryKeyConstraint("deployment_id", "number"),
    )
    op.create_table(
        "leadership",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    for table, columns in _columns().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(column)
    with op.batch_alter_table("deploymentevent") as batch:
        batch.add_column(sa.Column("inputs", sa.JSON(), nullable=True))
    op.execute("INSERT INTO leadership (id, epoch) VALUES (1, 0)")
    op.execute(
        "INSERT INTO revision (deployment_id, number, base_model, engine, retired, created_at) "
        "SELECT id, 1, base_model, '{}', false, created_at FROM deployment"
    )
    op.execute("UPDATE deployment SET prepared = 1 WHERE status != 'pending'")


def downgrade() -> None:
    op.drop_table("revision")
    op.drop_table("leadership")
    for table, columns in _columns().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
    with op.batch_alter_table("deploymentevent") as batch:
        batch.drop_column("inputs")
