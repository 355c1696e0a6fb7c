"""The prediction log: each call as it is written, sealed, found again, kept, erased and proven."""
