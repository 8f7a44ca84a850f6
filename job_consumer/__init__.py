"""Turns a claimed task into a container and its output into the task's result. One process per GPU."""
