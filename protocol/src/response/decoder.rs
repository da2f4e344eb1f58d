//! `ResponseDecoder`: a server's bytes into responses, resuming where it stopped.
