"""The gateway as operating-system processes: one supervisor and the workers that share a port."""
