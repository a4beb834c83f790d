"""`zipstage bench`: speed and memory on this machine, with reference points from the same run."""
