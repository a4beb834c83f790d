"""One sample of an output for people's eyes: which one, its row in lines, its picture."""
