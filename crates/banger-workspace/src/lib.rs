//! A git repository into a guest, and its commits out again. The repository, its configuration and
//! everything that a guest sends are hostile: git itself is run with a directory of our own only.
