"""Every reach into private or heavy parts of other libraries, one file a library: see README.md."""
