"""The audit trail: what is recorded, how it is chained, and how it is checked.

An event is written in the transaction of what it is about, so that neither is without the other; of what is read,
before a byte of it is sent. To link it to the chain there and then would let one transaction write at a time, so a loop
links events seconds later, in the order of their ids.
"""
