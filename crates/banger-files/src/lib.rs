//! A tree of files as one stream: packed on one side of a machine's border, unpacked on the other
//! strictly below one directory. Host and guest use the same code.
