"""Who gets what: consumers and what occupies them, the claims of tasks and replicas, scaling, and eviction."""
