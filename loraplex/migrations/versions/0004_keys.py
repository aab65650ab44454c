"""keys with scopes, expiry and last use; tenants that run the platform; descriptions"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("apikey") as batch:
        batch.add_column(sa.Column("hint", sa.String(), nullable=False, server_default=""))
        # Keys of before could do everything.
        batch.add_column(sa.Column("scopes", sa.JSON(), nullable=False, server_default='["admin"]'))
        batch.add_column(sa.Column("expires_at", sa.DateTime(timezone=True)))
        batch.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True)))
        batch.add_column(sa.Column("replaced_by", sa.String()))
    with op.batch_alter_table("tenant") as batch:
        batch.add_column(
            sa.Column("operator", sa.Boolean(), nullable=False, server_default="0")
        )
    with op.batch_alter_table("deployment") as batch:
        batch.add_column(sa.Column("description", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE tenant SET operator = true WHERE id = 'dev'")


def downgrade() -> None:
    with op.batch_alter_table("deployment") as batch:
        batch.drop_column("description")
    with op.batch_alter_table("tenant") as batch:
        batch.drop_column("operator")
    with op.batch_alter_table("apikey") as batch:
        for name in ("replaced_by", "last_used_at", "expires_at", "scopes", "hint"):
            batch.drop_column(name)
