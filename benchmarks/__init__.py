"""Measurements as ratios to a yardstick in the same run: machines are noisy, absolute numbers mean little."""
