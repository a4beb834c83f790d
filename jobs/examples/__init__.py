"""How others read what `zipstage purify` wrote: each file runs alone, as `python jobs/examples/NAME.py OUTPUT`."""
