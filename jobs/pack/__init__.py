"""WebDataset shards out of a folder of pictures: what is in it, what it is called, how it is written."""
