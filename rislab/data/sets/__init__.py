"""One file a referring data set: what it is called, which files it has, how much each split holds, where to get it."""
