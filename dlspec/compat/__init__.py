"""Uses of private or heavy parts of other libraries, one file per library; see README.md."""
