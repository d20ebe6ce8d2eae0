"""Settings of the trainer that do not change a run's result.

Kept apart from the trainer's schema for code that only reads runs and should not import pydantic.
"""

# What is displayed and written.
OUTPUT_KEYS = frozenset(
    "progress curves pictures tensorboard checkpoints checkpoint_steps checkpoint_minutes keep_checkpoints".split()
)
# How a machine computes the result. Another number of threads may change the last bits.
MACHINE_KEYS = frozenset("threads allocator num_workers activation_checkpointing parallel".split())
