"""Settings of the trainer that do not change a run's result.

Kept apart from the trainer's schema for code that only reads runs and should not import pydantic.
"""

# What is displayed and written.
OUTPUT_KEYS = frozenset(
    "progress curves pictures tensorboard checkpoints checkpoint_steps checkpoint_minutes keep_checkpoints".split()
)
# How a machine computes the result. Another number of threads may change the last bits.
MACHINE_KEYS = frozenset("threads allocator num_workers activation_checkpointing parallel".split())
# What is equal for all jobs of a stack: how a step is computed. Each job has its own other settings.
STACKED_TRAINER_KEYS = tuple(
    """accumulate activation_checkpointing allocator batch_size channels_last compile debug deterministic device
    limit_batches num_workers on_nan precision sampling threads tune""".split()
)
