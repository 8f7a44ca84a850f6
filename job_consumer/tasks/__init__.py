"""One attempt of one task: in a container of its own or through a warm replica, with its log."""
