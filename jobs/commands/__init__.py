"""One file for each command: words, flags and exit codes. What they do is in `pipeline` and beside them in `jobs`."""
