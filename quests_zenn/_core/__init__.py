"""Ground floor: jit decorator, checks and errors, progress, maps over threads.

Nothing here knows about atoms, and nothing here imports another room.
"""
