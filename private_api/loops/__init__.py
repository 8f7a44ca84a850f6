"""The background loops: dispatcher, reaper, janitor, scaler."""
