"""`zipstage evaluate`: attacks x data sets x defences, through the real job."""
