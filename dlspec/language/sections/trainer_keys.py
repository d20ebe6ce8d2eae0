"""Settings of the trainer that change no result; named apart from it, for what reads runs and needs no schema."""

OUTPUT_KEYS = frozenset(
    "progress curves pictures tensorboard checkpoints checkpoint_steps checkpoint_minutes keep_checkpoints".split()
)
"""Those that say what is shown and written."""
MACHINE_KEYS = frozenset("threads allocator num_workers activation_checkpointing".split())
"""Those that say how a machine comes to its results; another number of threads may change the last bits."""
