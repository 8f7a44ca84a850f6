"""Every service in one process, over SQLite and a broker in memory: the product on one machine, without Compose."""
