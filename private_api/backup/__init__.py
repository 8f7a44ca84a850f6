"""A copy of everything the private API holds, and a server made from one."""
