"""Measurements as ratios to a yardstick in the same run: machines are shared and noisy, absolute numbers mean little."""
