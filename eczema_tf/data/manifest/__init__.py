"""The manifest: the one table that every data set becomes, and its checks."""
