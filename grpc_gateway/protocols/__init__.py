"""The public contracts whose calls the gateway answers itself, one module each."""
