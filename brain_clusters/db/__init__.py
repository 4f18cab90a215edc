"""PostgreSQL: engine and session, the models, migrations and queries. No rules of the system live here."""
