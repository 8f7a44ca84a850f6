"""The engine that runs programs as processes of this machine, for machines without Docker."""
