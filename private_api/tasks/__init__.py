"""The rules of a task's life. Each function is one transaction; times come from the database's clock."""
