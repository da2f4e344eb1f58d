//! A cache too simple to be wrong.
