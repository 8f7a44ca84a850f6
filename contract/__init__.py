"""What two services must agree on, and nothing else.

Admission rule: a module belongs here only if changing it in one service alone would break another.
"""
