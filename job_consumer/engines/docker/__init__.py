"""The engine that runs containers on a Docker Engine; docker-py is imported nowhere else."""
