"""Quotas of owners: what limits whom, what is used, and what is refused or passed over for it."""
