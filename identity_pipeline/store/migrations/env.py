"""Alembic's entry: runs the versions on the connection that ``migrate`` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="identity", transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
